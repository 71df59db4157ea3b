"""What each chart shows."""

import math
from collections.abc import Sequence

import numpy as np

from detector.evaluation import Analysis, CalibrationBin, ClassResult, ScoreCurve
from detector.html_report.shapes import Box, Dot, Drawing, Line, Role, Text
from detector.html_report.tables import format_percent

MAX_CONFUSION_CLASSES = 24  # shown of the confusion matrix
MAX_POINTS = 400  # of a line


def draw_all_charts(analysis: Analysis, names: Sequence[str]) -> dict[str, Drawing]:
    """Every chart, by the name of its PNG file."""
    charts = [
        draw_bars(
            "errors",
            "dAP: AP50 lost to each kind of error",
            [(f"{k} ({n})", 100 * v, f"{100 * v:+.1f}") for k, (n, v) in analysis.errors.items()],
        ),
        draw_bars(
            "sizes",
            "AP by object size",
            [
                (
                    f"{size.name} ({size.num_ground_truth})",
                    100 * (size.ap or 0),
                    format_percent(size.ap),
                )
                for size in analysis.sizes
            ],
            maximum=100,
        ),
        draw_precision_recall(analysis.precision),
        draw_threshold_curves(analysis.curve, analysis.threshold),
        draw_f1_by_class(analysis.classes, analysis.curve),
        draw_calibration(analysis.calibration),
        draw_confusion_matrix(analysis.confusion, names),
    ]
    return {chart.name: chart for chart in charts}


def draw_bars(
    name: str, label: str, lines: Sequence[tuple[str, float, str]], maximum: float | None = None
) -> Drawing:
    """Horizontal bars of (name, value, text after the bar)."""
    top = maximum or max([value for _, value, _ in lines] + [1e-9])
    shapes = []
    for number, (words, value, after) in enumerate(lines):
        y, width = 26 * number, max(240 * value / top, 0)
        shapes += [
            Text(142, y + 17, words, "end", "ink"),
            Box(150, y + 4, width, 18, "accent"),
            Text(157 + width, y + 17, after),
        ]
    return Drawing(name, label, 460, 26 * len(lines), shapes)


def draw_unit_square(
    name: str, label: str, inside: Sequence[Line | Dot | Text], x_label: str, y_label: str
) -> Drawing:
    """Axes from 0 to 1 around shapes that `_at` places."""
    shapes: list[Text | Line | Dot | Box] = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = _at(value, value)
        shapes += [
            Line([(x, 30), (x, 270)], "line"),
            Line([(54, y), (446, y)], "line"),
            Text(x, 287, f"{value:g}", "middle"),
            Text(47, y + 4, f"{value:g}", "end"),
        ]
    shapes += [*inside, Text(250, 305, x_label, "middle")]
    shapes += [Text(11, 150, y_label, "middle", rotated=True)]
    return Drawing(name, label, 460, 312, shapes)


def _at(x: float, y: float) -> tuple[float, float]:
    return 54 + 392 * x, 270 - 240 * y


def _make_line(
    x: np.ndarray, y: np.ndarray, role: Role, width: float = 1, opacity: float = 1
) -> Line:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))
    points = [_at(a, b) for a, b in zip(x[chosen].tolist(), y[chosen].tolist(), strict=True)]
    return Line(points, role, width, opacity)


def _choose_opacity(lines: int) -> float:
    """The opacity of a line, given how many lines may overlap."""
    return max(0.15, 0.6 / max(lines, 1) ** 0.35)


def draw_precision_recall(precision: np.ndarray) -> Drawing:
    """A thin line for each class and a thick one for their mean; `precision` [101, classes]."""
    recalls = np.linspace(0, 1, 101)
    defined = precision[:, (precision > -1).all(0)]
    count = defined.shape[1]
    lines = [
        _make_line(recalls, column, "accent", 1, _choose_opacity(count)) for column in defined.T
    ]
    if count:
        lines.append(_make_line(recalls, defined.mean(1), "accent", 3))
    label = "precision-recall curves at IoU 0.5"
    return draw_unit_square("precision_recall", label, lines, "recall", "precision")


def draw_threshold_curves(curve: ScoreCurve, threshold: float) -> Drawing:
    """Precision, recall and F1 of all classes together over the threshold; the chosen one is marked."""
    shapes: list[Line | Text] = []
    kinds: tuple[tuple[str, np.ndarray, Role], ...] = (
        ("precision", curve.precision, "accent"),
        ("recall", curve.recall, "warm"),
        ("F1", curve.f1, "green"),
    )
    for number, (name, values, role) in enumerate(kinds):
        if len(curve.score):
            shapes.append(_make_line(curve.score, values, role, 2))
        shapes.append(Text(58 + 80 * number, 16, name, role=role))
    x, bottom = _at(threshold, 0)
    shapes.append(Line([(x, 30), (x, bottom)], "ink", dashed=True))
    label = "precision, recall and F1 over the confidence threshold"
    return draw_unit_square("scores", label, shapes, "confidence threshold", "")


def draw_f1_by_class(classes: Sequence[ClassResult], curve: ScoreCurve) -> Drawing:
    """A thin line for each class with ground truth and detections, a thick one for all together."""
    curves = [one.curve for one in classes if one.num_ground_truth and len(one.curve.score)]
    lines = [_make_line(c.score, c.f1, "green", 1, _choose_opacity(len(curves))) for c in curves]
    if len(curve.score):
        lines.append(_make_line(curve.score, curve.f1, "green", 3))
    label = "F1 of each class over the confidence threshold"
    return draw_unit_square("f1", label, lines, "confidence threshold", "F1")


def draw_epochs(
    name: str, label: str, history: Sequence[dict[str, float]], columns: dict[str, str]
) -> Drawing:
    """A line for each column of results.csv over the epochs, from 0 to the greatest value.

    `columns`: name of a column -> in words.
    """
    values = [row[key] for row in history for key in columns if key in row]
    most = 1.0 if name == "accuracy" else max([v for v in values if math.isfinite(v)] + [1e-9])
    last = max(row["epoch"] for row in history)
    shapes: list[Line | Text | Dot] = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _at(share, share)
        shapes += [
            Line([(54, y), (446, y)], "line"),
            Text(47, y + 4, f"{most * share:.3g}", "end"),
            Text(x, 287, f"{last * share:g}", "middle"),
        ]
    for number, (key, words) in enumerate(columns.items()):
        role: Role = ("accent", "warm")[number % 2]
        known = [row for row in history if math.isfinite(row.get(key, math.nan)) and row[key] >= 0]
        points = [(54 + 392 * row["epoch"] / last, 270 - 240 * row[key] / most) for row in known]
        if points:
            shapes += [Line(points, role, 2), Dot(*points[-1], 3, role)]
        shapes.append(Text(58 + 170 * number, 16, words, role=role))
    shapes.append(Text(250, 305, "epoch", "middle"))
    return Drawing(name, f"{label} by epoch", 460, 312, shapes)


def draw_calibration(bins: Sequence[CalibrationBin], what: str = "detections") -> Drawing:
    """A dot for each bin, larger for more detections; the diagonal is perfect calibration."""
    largest = max([math.sqrt(each.count) for each in bins] + [1])
    shapes: list[Line | Dot] = [Line([_at(0, 0), _at(1, 1)], "soft", dashed=True)]
    for each in bins:
        title = f"{each.count} {what}, mean score {each.score:.2f}: precision {each.precision:.1%}"
        radius = 3 + 9 * math.sqrt(each.count) / largest
        shapes.append(Dot(*_at(each.score, each.precision), radius, "accent", title))
    label = "precision over the mean score, by bins of score"
    return draw_unit_square("calibration", label, shapes, "mean score", "precision")


def find_most_confused_classes(
    matrix: np.ndarray, classes: int, limit: int = MAX_CONFUSION_CLASSES
) -> list[int]:
    """The classes of a confusion matrix with the most errors, in the matrix's order; no background."""
    wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    return np.sort(np.argsort(-wrong[:classes], kind="stable")[:limit]).tolist()


def draw_confusion_matrix(matrix: np.ndarray, names: Sequence[str]) -> Drawing:
    """Ground truth by predicted class, shaded by share of the row; the classes with the most errors."""
    background = [len(names)] if len(matrix) > len(names) else []
    shown = [*find_most_confused_classes(matrix, len(names)), *background]
    titles = [*names, "background"]
    longest = max(len(_shorten(titles[i])) for i in shown)
    cell = 30
    left = top = 34 + 7 * longest
    side = cell * len(shown)
    shapes: list[Text | Box] = [
        Text(left + side / 2, 12, "predicted", "middle"),
        Text(12, top + side / 2, "ground truth", "middle", rotated=True),
    ]
    for row, i in enumerate(shown):
        y = top + cell * row
        shapes.append(Text(left - 8, y + 19, _shorten(titles[i]), "end", "ink"))
        x = left + cell * row + 19
        shapes.append(Text(x, top - 8, _shorten(titles[i]), role="ink", rotated=True))
        total = max(int(matrix[i].sum()), 1)
        for column, j in enumerate(shown):
            count = int(matrix[i, j])
            title = f"{titles[i]} predicted as {titles[j]}: {count}, {count / total:.1%}"
            role = "accent" if i == j else "warm"
            shapes += _draw_confusion_cell(
                left + cell * column, y, cell - 1, count, total, role, title
            )
    label = "confusion matrix: ground-truth class by predicted class"
    return Drawing("confusion", label, left + side + 8, top + side + 4, shapes, fixed=True)


def _draw_confusion_cell(
    x: float, y: float, side: float, count: int, total: int, role: Role, title: str
) -> list[Text | Box]:
    """A cell, shaded by its share of `total`, and its count; pale where that is 0."""
    if not count:
        return [Box(x, y, side, side, "soft", 0.04)]
    shade = 0.08 + 0.62 * math.sqrt(count / total)
    size = 11 if count < 1000 else 9
    number = Text(x + side / 2, y + 19, str(count), "middle", "ink", size=size)
    return [Box(x, y, side, side, role, shade, title), number]


def _shorten(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "."
