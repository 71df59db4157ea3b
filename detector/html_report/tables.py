"""The report's tables, as HTML."""

import html
from collections.abc import Sequence

import numpy as np

from detector.api.validation import Evaluation
from detector.evaluation import METRICS, Analysis, OperatingPoint, ScoreCurve, ThresholdGoal

GOALS = (0.5, 0.8, 0.9, 0.95)  # precisions and recalls in the table of operating points
STAGES = {
    "images": "loading and copying images",
    "network": "network",
    "boxes": "decoding and NMS",
}


def escape(value: object) -> str:
    """Escapes text for HTML, also within quotes."""
    return html.escape(str(value))


def format_percent(value: float | None) -> str:
    """A number in [0, 1] in percent, as in COCO's tables; the word none where it is undefined."""
    return "none" if value is None or value < 0 else f"{100 * value:.1f}"


def make_metric_cards(evaluation: Evaluation) -> str:
    """The twelve numbers, with their confidence intervals where computed."""
    cells = []
    intervals = evaluation.result.intervals or [None] * len(METRICS)
    for (name, value), interval in zip(evaluation.result.metrics.items(), intervals, strict=True):
        between = ""
        if interval is not None:
            between = f"<span>{format_percent(interval[0])} to {format_percent(interval[1])}</span>"
        cells.append(
            f'<div class="card"><span>{name}</span><b>{format_percent(value)}</b>{between}</div>'
        )
    return f'<div class="cards">{"".join(cells)}</div>'


def make_table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, kind: str = "") -> str:
    """A table that scrolls where the page is narrower."""
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def make_operating_point_table(curve: ScoreCurve) -> str:
    """The confidence thresholds of the greatest F1 and of several precisions and recalls."""
    goals = [
        ThresholdGoal(),
        *(ThresholdGoal("precision", w) for w in GOALS),
        *(ThresholdGoal("recall", w) for w in GOALS),
    ]
    rows = [[str(goal), *format_point(curve, curve.choose_point(goal), goal)] for goal in goals]
    return make_table(("goal", "score", "precision", "recall", "F1"), rows)


def format_point(curve: ScoreCurve, point: OperatingPoint | None, goal: ThresholdGoal) -> list[str]:
    """Score, precision, recall and F1; the maximum of the metric where the goal is not reached."""
    if point is not None:
        return [f"{value:.3f}" for value in (point.score, point.precision, point.recall, point.f1)]
    if not len(curve.score):
        return ["no detections", "", "", ""]
    most = f"at most {curve.maximum(goal.metric):.3f}"
    return [
        "not reached",
        *(most if name == goal.metric else "" for name in ("precision", "recall", "f1")),
    ]


def make_timing_table(evaluation: Evaluation) -> str:
    """Median and 99th percentile of each stage of the inference."""
    if evaluation.timer is None:
        return "<p>Not measured: the detections come from a results file.</p>"
    rows = [
        [STAGES[stage], f"{ms['median']:.1f}", f"{ms['p99']:.1f}"]
        for stage, ms in evaluation.timer.summary().items()
    ]
    device = escape(evaluation.result.about.get("device", ""))
    return make_table(("stage", "median", "99th percentile"), rows) + f"<p>{device}</p>"


def make_class_table(evaluation: Evaluation, analysis: Analysis) -> str:
    """AP and the operating point of each class, sortable, below those of all classes."""
    heads = (
        "class",
        "objects",
        "AP",
        "AP50",
        "AP75",
        "AR100",
        "score",
        "precision",
        "recall",
        "F1",
    )
    head = "".join(f"<th><button>{name}</button></th>" for name in heads)
    values = [evaluation.result.metrics[name] for name in ("AP", "AP50", "AP75", "AR100")]
    total = sum(one.num_ground_truth for one in analysis.classes)
    every = [_make_cell("all classes"), _make_cell(total), *map(_make_percent_cell, values)]
    every += _make_point_cells(analysis.curve, analysis.point, analysis.goal, total)
    rows = ""
    for one in analysis.classes:
        cells = [_make_cell(one.name), _make_cell(one.num_ground_truth)]
        cells += map(_make_percent_cell, (one.ap, one.ap50, one.ap75, one.ar))
        cells += _make_point_cells(one.curve, one.point, analysis.goal, one.num_ground_truth)
        rows += f"<tr>{''.join(cells)}</tr>"
    return (
        f'<div class="wide tall"><table class="sortable"><thead><tr>{head}</tr>'
        f'<tr class="all">{"".join(every)}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _make_cell(shown: object, key: object = None) -> str:
    """A cell and its sort key; cells with an empty key come last."""
    return f'<td data-value="{escape(shown if key is None else key)}">{escape(shown)}</td>'


def _make_percent_cell(value: float | None) -> str:
    return (
        _make_cell("", "")
        if value is None or value < 0
        else _make_cell(format_percent(value), f"{value:.6f}")
    )


def _make_point_cells(
    curve: ScoreCurve, point: OperatingPoint | None, goal: ThresholdGoal, num_ground_truth: int
) -> list[str]:
    """The cells of an operating point, empty without ground truth."""
    if not num_ground_truth:
        return [_make_cell("", "")] * 4
    words = format_point(curve, point, goal)
    return [_make_cell(word, word if point else "") for word in words]


def make_confusion_table(matrix: np.ndarray, names: Sequence[str], limit: int = 12) -> str:
    """The most frequent confusions of two classes, without background."""
    wrong = matrix[: len(names), : len(names)].copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for at in np.argsort(-wrong, axis=None, kind="stable")[:limit].tolist():
        actual, predicted = divmod(at, len(names))
        count = int(wrong[actual, predicted])
        if count:
            share = f"{count / matrix[actual].sum():.0%} of {matrix[actual].sum()}"
            rows.append([names[actual], names[predicted], count, share])
    if not rows:
        return "<p>No class is confused with another.</p>"
    return make_table(("ground truth", "predicted as", "count", "share"), rows, kind="narrow")
