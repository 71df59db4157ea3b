"""The report's tables, as HTML."""

import html
from collections.abc import Sequence

import numpy as np

from detector.api.validation import Evaluation
from detector.evaluation import METRICS, Analysis, OperatingPoint, ScoreCurve, ThresholdGoal

WANTED = (0.5, 0.8, 0.9, 0.95)  # precisions and recalls whose scores are told
STEPS = {
    "images": "waiting for images, moving them",
    "network": "network",
    "boxes": "decoding and suppression",
}


def text(value: object) -> str:
    """For HTML, also within quotes."""
    return html.escape(str(value))


def percent(value: float | None) -> str:
    """As in COCO's tables."""
    return "none" if value is None or value < 0 else f"{100 * value:.1f}"


def cards(outcome: Evaluation) -> str:
    """The twelve numbers, with their intervals where they are known."""
    cells = []
    bounds = outcome.row.bounds or [None] * len(METRICS)
    for (name, value), bound in zip(outcome.row.metrics.items(), bounds, strict=True):
        between = (
            "" if bound is None else f"<span>{percent(bound[0])} to {percent(bound[1])}</span>"
        )
        cells.append(f'<div class="card"><span>{name}</span><b>{percent(value)}</b>{between}</div>')
    return f'<div class="cards">{"".join(cells)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, kind: str = "") -> str:
    """A table that scrolls where the page is narrower."""
    head = "".join(f"<th>{text(word)}</th>" for word in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>" for cells in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def operating_points(curve: ScoreCurve) -> str:
    """The scores at which F1 is greatest, and a wanted precision or recall is reached."""
    goals = [
        ThresholdGoal(),
        *(ThresholdGoal("precision", w) for w in WANTED),
        *(ThresholdGoal("recall", w) for w in WANTED),
    ]
    rows = [[str(goal), *reached(curve, curve.point(goal), goal)] for goal in goals]
    return table(("wanted", "score", "precision", "recall", "F1"), rows)


def reached(curve: ScoreCurve, point: OperatingPoint | None, goal: ThresholdGoal) -> list[str]:
    """Score, precision, recall and F1; where the goal is never reached, how far it is."""
    if point is not None:
        return numbers(point)
    if not len(curve.score):
        return ["nothing found", "", "", ""]
    most = f"at most {curve.greatest(goal.of):.3f}"
    return ["never", *(most if name == goal.of else "" for name in ("precision", "recall", "f1"))]


def numbers(point: OperatingPoint) -> list[str]:
    """Score, precision, recall, F1."""
    return [f"{value:.3f}" for value in (point.score, point.precision, point.recall, point.f1)]


def speed(outcome: Evaluation) -> str:
    """Median and 99th percentile of each step."""
    if outcome.timer is None:
        return "<p>Not measured: these are results from a file.</p>"
    rows = [
        [STEPS[step], f"{ms['median']:.1f}", f"{ms['p99']:.1f}"]
        for step, ms in outcome.timer.summary().items()
    ]
    device = text(outcome.row.about.get("device", ""))
    return table(("step", "median", "99th percentile"), rows) + f"<p>{device}</p>"


def class_table(outcome: Evaluation, analysis: Analysis) -> str:
    """AP and the chosen point of each class, sortable; a line for all of them above."""
    heads = ("class", "truths", "AP", "AP50", "AP75", "AR100", "score", "precision", "recall", "F1")
    head = "".join(f"<th><button>{name}</button></th>" for name in heads)
    values = [outcome.row.metrics[name] for name in ("AP", "AP50", "AP75", "AR100")]
    truths = sum(one.truths for one in analysis.classes)
    every = [_cell("all together"), _cell(truths), *map(_share, values)]
    every += _point_cells(analysis.curve, analysis.point, analysis.goal, there=truths > 0)
    rows = ""
    for one in analysis.classes:
        cells = [_cell(one.name), _cell(one.truths)]
        cells += map(_share, (one.ap, one.ap50, one.ap75, one.ar))
        cells += _point_cells(one.curve, one.point, analysis.goal, there=one.truths > 0)
        rows += f"<tr>{''.join(cells)}</tr>"
    return (
        f'<div class="wide tall"><table class="sortable"><thead><tr>{head}</tr>'
        f'<tr class="all">{"".join(every)}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(shown: object, key: object = None) -> str:
    """A cell, and what it is sorted by; what has no key stands last."""
    return f'<td data-value="{text(shown if key is None else key)}">{text(shown)}</td>'


def _share(value: float | None) -> str:
    return _cell("", "") if value is None or value < 0 else _cell(percent(value), f"{value:.6f}")


def _point_cells(
    curve: ScoreCurve, point: OperatingPoint | None, goal: ThresholdGoal, *, there: bool
) -> list[str]:
    """Those of `reached`, none without truths."""
    if not there:
        return [_cell("", "")] * 4
    words = reached(curve, point, goal)
    return [_cell(word, word if point else "") for word in words]


def confusions(matrix: np.ndarray, names: Sequence[str], limit: int = 12) -> str:
    """What is taken for what most often, background left out."""
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for at in np.argsort(-wrong, axis=None, kind="stable")[:limit].tolist():
        true, found = divmod(at, len(names))
        count = int(wrong[true, found])
        if count:
            share = f"{count / matrix[true].sum():.0%} of {matrix[true].sum()}"
            rows.append([names[true], names[found], count, share])
    if not rows:
        return "<p>No class is taken for another.</p>"
    return table(("true", "taken for", "times", "of the true"), rows, kind="narrow")
