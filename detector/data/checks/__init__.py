"""What is wrong with a data set, found before an epoch is spent on it.

Read `report` (kinds, problems, the table), `labels` (what the index alone shows; training looks at this
much), `images` (every file read and decoded), `twins` (equal and nearly equal images), `run` (all of
it); `plots` draws.
"""

from detector.data.checks.label_plots import plot_labels, plot_sheet, require_matplotlib
from detector.data.checks.labels import check_labels, start_lines
from detector.data.checks.problems import KINDS, Kind, Problem, Report
from detector.data.checks.run import check_dataset

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
    "start_lines",
]
