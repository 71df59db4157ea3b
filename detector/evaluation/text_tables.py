"""Tables for the terminal: COCO's twelve numbers, their intervals, models compared, thresholds."""

from collections.abc import Sequence

from detector.evaluation.coco_ap import METRICS
from detector.evaluation.comparison import ModelResult
from detector.evaluation.error_analysis import Analysis
from detector.evaluation.intervals import Interval

PAPER_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # of the papers' tables
_ABOUT = (
    "IoU 0.50:0.95",
    "IoU 0.50",
    "IoU 0.75",
    "IoU 0.50:0.95, area < 32^2",
    "IoU 0.50:0.95, area 32^2 .. 96^2",
    "IoU 0.50:0.95, area > 96^2",
    "recall, 1 detection per image",
    "recall, 10 detections per image",
    "recall, 100 detections per image",
    "recall, area < 32^2",
    "recall, area 32^2 .. 96^2",
    "recall, area > 96^2",
)


def format_metrics(metrics: dict[str, float]) -> str:
    """COCO's twelve numbers, a line each."""
    lines = []
    for name, about in zip(METRICS, _ABOUT, strict=True):
        value = f"{metrics[name]:.4f}" if metrics[name] >= 0 else "none"
        lines.append(f"  {name:<6} {value:>7}   {about}")
    return "\n".join(lines)


def format_intervals(intervals: Sequence[Interval | None]) -> str:
    """The confidence intervals of the twelve numbers, a line each."""
    lines = []
    for name, interval in zip(METRICS, intervals, strict=True):
        text = "none" if interval is None else f"{interval[0]:.4f} .. {interval[1]:.4f}"
        lines.append(f"  {name:<6} {text}")
    return "\n".join(lines)


def format_comparison(rows: Sequence[ModelResult]) -> str:
    """A table of models with the papers' columns, in percent.

    Confidence intervals follow each model; differences to the first model come last.
    """
    head = ["Detector", "Activation", *PAPER_COLUMNS, "Weights or results"]
    cells = [head]
    for row in rows:
        values = [_percent(row.metrics[name]) for name in PAPER_COLUMNS]
        cells.append([row.detector, row.activation, *values, row.source])
        if row.intervals is not None:
            cells += _interval_rows(dict(zip(METRICS, row.intervals, strict=True)))
    for row in rows:
        if row.difference is None:
            continue
        change = dict(zip(METRICS, row.difference, strict=True))
        values = [f"{100 * change[name][0]:+.1f}" for name in PAPER_COLUMNS]
        cells.append([f"{row.detector} - first", "", *values, row.source])
        cells += _interval_rows({name: change[name][1] for name in METRICS}, sign="+")
    return _align(cells)


def _interval_rows(intervals: dict[str, Interval | None], sign: str = "") -> list[list[str]]:
    """The rows of the lower and of the upper ends of intervals."""
    return [
        ["", title, *(_end(intervals[name], which, sign) for name in PAPER_COLUMNS), ""]
        for which, title in enumerate(("  95 % CI low", "         high"))
    ]


def _align(cells: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the numbers' to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        words = [
            word.rjust(width) if 2 <= column < 2 + len(PAPER_COLUMNS) else word.ljust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= 0 else "none"


def _end(interval: Interval | None, which: int, sign: str) -> str:
    return "none" if interval is None else f"{100 * interval[which]:{sign}.1f}"


def format_operating_points(analysis: Analysis) -> str:
    """The chosen confidence thresholds: of all classes together and, unless for F1, of each class."""
    goal = analysis.goal
    classes = (
        [one for one in analysis.classes if one.num_ground_truth] if goal.metric != "f1" else []
    )
    lines = [("all classes", analysis.curve, analysis.point)]
    lines += [(one.name, one.curve, one.point) for one in classes]
    width = max(len(name) for name, _, _ in lines)
    words = []
    for name, curve, point in lines:
        if point is None and not len(curve.score):
            about = "no detections"
        elif point is None:
            about = f"not reached, at most {curve.maximum(goal.metric):.3f}"
        else:
            about = (
                f"score {point.score:.3f}  precision {point.precision:.3f}  recall {point.recall:.3f}  "
                f"F1 {point.f1:.3f}"
            )
        words.append(f"  {name:<{width}}  {about}")
    return "\n".join([f"confidence threshold for {goal}, at IoU 0.5:", *words])
