"""Checks of a data set before it is trained on.

Read `problems` first (the kinds of problems), then `labels` (what the index alone shows; a training run
starts with these), `images` (reads and decodes every file), `duplicates` (equal and similar images) and
`check_dataset` (runs all checks). `check_report` is the result, `label_plots` draws labels.
"""

from detector.data.checks.check_dataset import check_dataset
from detector.data.checks.check_report import DatasetReport
from detector.data.checks.label_plots import plot_labels, plot_sheet
from detector.data.checks.labels import check_labels, describe_findings, describe_label_problems
from detector.data.checks.problems import KINDS, Kind, Problem

__all__ = [
    "KINDS",
    "DatasetReport",
    "Kind",
    "Problem",
    "check_dataset",
    "check_labels",
    "plot_labels",
    "plot_sheet",
    "describe_findings",
    "describe_label_problems",
]
