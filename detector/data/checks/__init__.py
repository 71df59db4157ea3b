"""What is wrong with a data set, found before an epoch is spent on it.

Read `report` (kinds, problems, the table), `labels` (what the index alone shows; training looks at this
much), `images` (every file read and decoded), `twins` (equal and nearly equal images), `run` (all of
it); `plots` draws.
"""

from detector.data.checks.check_dataset import check_dataset
from detector.data.checks.label_plots import plot_labels, plot_sheet, require_matplotlib
from detector.data.checks.labels import check_labels, describe_label_problems
from detector.data.checks.problems import KINDS, Kind, Problem, Report

__all__ = [
    "KINDS",
    "Kind",
    "Problem",
    "Report",
    "check_dataset",
    "check_labels",
    "plot_labels",
    "plot_sheet",
    "require_matplotlib",
    "describe_label_problems",
]
