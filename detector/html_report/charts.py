"""What each chart shows."""

import math
from collections.abc import Sequence

import numpy as np

from detector.evaluation import Analysis, ClassResult, ScoreCurve
from detector.html_report.shapes import Box, Dot, Drawing, Line, Role, Text

CONFUSED = 24  # classes shown of the confusion matrix
POINTS = 400  # of a line


def all_charts(analysis: Analysis, names: Sequence[str]) -> dict[str, Drawing]:
    """Every chart, by name."""
    charts = [
        bars(
            "errors",
            "AP50 lost to each kind of error",
            [(f"{k} ({n})", 100 * v, f"{100 * v:+.1f}") for k, (n, v) in analysis.errors.items()],
        ),
        bars(
            "sizes",
            "AP by size of the object",
            [
                (f"{name} ({n})", 100 * (ap or 0), "none" if ap is None else f"{100 * ap:.1f}")
                for name, n, ap in analysis.sizes
            ],
            most=100,
        ),
        precision_recall(analysis.precision),
        scores(analysis.curve, analysis.threshold),
        f1_by_class(analysis.classes, analysis.curve),
        calibration(analysis.calibration),
        confusion(analysis.confusion, names),
    ]
    return {chart.name: chart for chart in charts}


def bars(
    name: str, label: str, lines: Sequence[tuple[str, float, str]], most: float | None = None
) -> Drawing:
    """Horizontal bars of (name, value, what stands at the end)."""
    top = most or max([value for _, value, _ in lines] + [1e-9])
    shapes = []
    for number, (words, value, end) in enumerate(lines):
        y, width = 26 * number, max(240 * value / top, 0)
        shapes += [
            Text(142, y + 17, words, "end", "ink"),
            Box(150, y + 4, width, 18, "accent"),
            Text(157 + width, y + 17, end),
        ]
    return Drawing(name, label, 460, 26 * len(lines), shapes)


def unit_square(
    name: str, label: str, inside: Sequence[Line | Dot | Text], across: str, up: str
) -> Drawing:
    """Axes from 0 to 1 around what `_at` places."""
    shapes: list[Text | Line | Dot | Box] = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = _at(value, value)
        shapes += [
            Line([(x, 30), (x, 270)], "line"),
            Line([(54, y), (446, y)], "line"),
            Text(x, 287, f"{value:g}", "middle"),
            Text(47, y + 4, f"{value:g}", "end"),
        ]
    shapes += [*inside, Text(250, 305, across, "middle"), Text(11, 150, up, "middle", turned=True)]
    return Drawing(name, label, 460, 312, shapes)


def _at(x: float, y: float) -> tuple[float, float]:
    return 54 + 392 * x, 270 - 240 * y


def _line(x: np.ndarray, y: np.ndarray, role: Role, width: float = 1, opacity: float = 1) -> Line:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    points = [_at(a, b) for a, b in zip(x[chosen].tolist(), y[chosen].tolist(), strict=True)]
    return Line(points, role, width, opacity)


def _thin(lines: int) -> float:
    """The opacity of so many lines that may lie over each other."""
    return max(0.15, 0.6 / max(lines, 1) ** 0.35)


def precision_recall(precision: np.ndarray) -> Drawing:
    """[101, classes]: a thin line a class, a thick one for the mean."""
    recalls = np.linspace(0, 1, 101)
    there = precision[:, (precision > -1).all(0)]
    count = there.shape[1]
    lines = [_line(recalls, column, "accent", 1, _thin(count)) for column in there.T]
    if count:
        lines.append(_line(recalls, there.mean(1), "accent", 3))
    label = "precision over recall, at IoU 0.5"
    return unit_square("precision_recall", label, lines, "recall", "precision")


def scores(curve: ScoreCurve, threshold: float) -> Drawing:
    """Precision, recall and F1 of all classes together against the threshold, which is marked."""
    shapes: list[Line | Text] = []
    kinds: tuple[tuple[str, np.ndarray, Role], ...] = (
        ("precision", curve.precision, "accent"),
        ("recall", curve.recall, "warm"),
        ("F1", curve.f1, "green"),
    )
    for number, (name, values, role) in enumerate(kinds):
        if len(curve.score):
            shapes.append(_line(curve.score, values, role, 2))
        shapes.append(Text(58 + 80 * number, 16, name, role=role))
    x, bottom = _at(threshold, 0)
    shapes.append(Line([(x, 30), (x, bottom)], "ink", dashed=True))
    label = "precision, recall and F1 over the score"
    return unit_square("scores", label, shapes, "score", "")


def f1_by_class(classes: Sequence[ClassResult], curve: ScoreCurve) -> Drawing:
    """A thin line a class that has truths and finds, a thick one for all together."""
    curves = [one.curve for one in classes if one.truths and len(one.curve.score)]
    lines = [_line(c.score, c.f1, "green", 1, _thin(len(curves))) for c in curves]
    if len(curve.score):
        lines.append(_line(curve.score, curve.f1, "green", 3))
    return unit_square("f1", "F1 of each class over the score", lines, "score", "F1")


def calibration(lines: Sequence[tuple[float, float, int]]) -> Drawing:
    """Dots of (score, share right, count)."""
    most = max([math.sqrt(count) for _, _, count in lines] + [1])
    shapes: list[Line | Dot] = [Line([_at(0, 0), _at(1, 1)], "soft", dashed=True)]
    for score, share, count in lines:
        title = f"{count} boxes of score {score:.2f}: {share:.1%} right"
        size = 3 + 9 * math.sqrt(count) / most
        shapes.append(Dot(*_at(score, share), size, "accent", title))
    label = "share of boxes that are right over their score"
    return unit_square("calibration", label, shapes, "score", "share that is right")


def most_confused(table: np.ndarray, limit: int = CONFUSED) -> list[int]:
    """The classes of a confusion matrix with most errors, in the table's order."""
    wrong = table.sum(0) + table.sum(1) - 2 * np.diag(table)
    return np.sort(np.argsort(-wrong[:-1], kind="stable")[:limit]).tolist()


def confusion(table: np.ndarray, names: Sequence[str]) -> Drawing:
    """True by found, shaded by share of the true class; of many classes those with most errors."""
    shown = [*most_confused(table), len(names)]
    titles = [*names, "background"]
    longest = max(len(_short(titles[i])) for i in shown)
    cell = 30
    left = top = 34 + 7 * longest
    side = cell * len(shown)
    shapes: list[Text | Box] = [
        Text(left + side / 2, 12, "found", "middle"),
        Text(12, top + side / 2, "true", "middle", turned=True),
    ]
    for row, i in enumerate(shown):
        y = top + cell * row
        shapes.append(Text(left - 8, y + 19, _short(titles[i]), "end", "ink"))
        x = left + cell * row + 19
        shapes.append(Text(x, top - 8, _short(titles[i]), role="ink", turned=True))
        total = max(int(table[i].sum()), 1)
        for column, j in enumerate(shown):
            x, count = left + cell * column, int(table[i, j])
            role, share = "accent" if i == j else "warm", count / total
            title = f"{titles[i]} found as {titles[j]}: {count}, {share:.1%}" if count else ""
            shade = 0.08 + 0.62 * math.sqrt(share) if count else 0.04
            shapes.append(Box(x, y, cell - 1, cell - 1, role if count else "soft", shade, title))
            if count:
                size = 11 if count < 1000 else 9
                shapes.append(
                    Text(x + (cell - 1) / 2, y + 19, str(count), "middle", "ink", size=size)
                )
    label = "true classes by found classes"
    return Drawing("confusion", label, left + side + 8, top + side + 4, shapes, fixed=True)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "."
