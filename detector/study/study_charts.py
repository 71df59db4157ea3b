"""What each chart of a study shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.html_report.shapes import Area, Box, Dot, Drawing, Line, Role, Text
from detector.study.answer import Answer
from detector.study.collect import RunResult
from detector.study.study_metrics import Metric

Shape = Text | Line | Area | Box | Dot
ROLES: tuple[Role, ...] = ("accent", "warm", "green", "violet", "rose", "olive")
LETTER = 7.2  # width of a letter, units of a drawing
ROW = 34  # height of an arm's row
LONGEST_NAME = 34  # letters of an arm's name that are shown


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to positions on a sheet."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def choose_ticks(self, wanted: int = 5) -> list[float]:
        """About `wanted` round values between the ends."""
        raw = (self.high - self.low) / wanted
        power = 10 ** math.floor(math.log10(raw))
        step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


def make_scale(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A scale whose ends lie a little beyond the finite values (and 0, if asked)."""
    known = [value for value in values if math.isfinite(value)] + ([0.0] if zero else [])
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = 0.06 * (high - low) or max(0.05 * abs(high), 0.5)
    return Scale(low - margin, high + margin, start, end)


def choose_role(number: int) -> Role:
    """The color of an arm."""
    return ROLES[number % len(ROLES)]


def is_dashed(number: int) -> bool:
    """Whether the line of an arm is dashed: those of the arms whose colors are taken are."""
    return number // len(ROLES) % 2 == 1


def draw_legend(names: Sequence[str]) -> tuple[list[Shape], float]:
    """The names of arms in their colors, in rows, and where the chart below them starts."""
    shapes: list[Shape] = []
    x, y = 58.0, 18.0
    for number, name in enumerate(names):
        title = shorten(name) + " (dashed)" * is_dashed(number)
        width = LETTER * len(title) + 18
        if x > 58 and x + width > 578:
            x, y = 58.0, y + 18
        shapes.append(Text(x, y, title, role=choose_role(number)))
        x += width
    return shapes, y + 16


def shorten(name: str) -> str:
    """A name that fits beside a chart."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 2]}.."


def draw_scores(answer: Answer) -> Drawing:
    """A dot for each finished run, a bar at the mean; a thin line joins the runs of a pair."""
    metric, factor = answer.metric, answer.metric.factor
    names = [arm.name for arm in answer.arms]
    left = 24 + LETTER * max(map(len, map(shorten, names)))
    bottom = ROW * len(names) + 6
    scores = collect_scores(answer)
    every = [factor * score for each in scores for score in each.values()]
    across = make_scale(every, left + 8, 560)
    shapes: list[Shape] = [*draw_vertical_grid(across, 6, bottom)]
    for pair in answer.study.pairs:
        points = [
            (across(factor * own[pair]), ROW * row + 22)
            for row, own in enumerate(scores)
            if pair in own
        ]
        if len(points) > 1:
            shapes.append(Line(points, "soft", opacity=0.35))
    for row, (name, own) in enumerate(zip(names, scores, strict=True)):
        y, role = ROW * row + 22, choose_role(row)
        shapes.append(Text(left, y + 4, shorten(name), "end", "ink"))
        for (seed, fold), score in own.items():
            where = f"seed {seed}" if fold is None else f"seed {seed}, fold {fold}"
            title = f"{name}, {where}: {metric.title} {metric.format_value(score, 2)}"
            shapes.append(Dot(across(factor * score), y, 5, role, title))
        if own:
            mean = across(factor * float(np.mean(list(own.values()))))
            shapes.append(Line([(mean, y - 12), (mean, y + 12)], role, 3))
    shapes.append(Text((left + 560) / 2, bottom + 36, metric.title, "middle"))
    label = f"{metric.title} of each run by arm; bars are means, thin lines join pairs"
    return Drawing("scores", label, 580, bottom + 42, shapes)


def collect_scores(answer: Answer) -> list[dict[tuple[int, int | None], float]]:
    """By arm: the metric of each finished run, by seed and fold."""
    return [
        {
            (result.run.seed, result.run.fold): score
            for result in answer.results
            if result.run.arm.name == arm.name
            and result.finished
            and not math.isnan(score := result.get_last(answer.metric.name))
        }
        for arm in answer.arms
    ]


def draw_differences(answer: Answer) -> Drawing:
    """The mean difference and interval of each comparison around 0; the detectable range is shaded."""
    metric, factor = answer.metric, answer.metric.factor
    comparisons = answer.comparisons[metric.name]
    names = [shorten(f"{each.arm} - {each.baseline}") for each in comparisons]
    left = 24 + LETTER * max(map(len, names), default=4)
    bottom = ROW * len(names) + 6
    values = [factor * end for each in comparisons for end in (each.low, each.high, each.mean)]
    values += [s * factor * each.detectable for each in comparisons for s in (-1, 1)]
    across = make_scale(values, left + 8, 560, zero=True)
    shapes: list[Shape] = [*draw_vertical_grid(across, 6, bottom)]
    for row, (name, each) in enumerate(zip(names, comparisons, strict=True)):
        y = ROW * row + 22
        role: Role = {"better": "green", "worse": "warm"}.get(each.outcome, "soft")  # type: ignore
        shapes.append(Text(left, y + 4, name, "end", "ink"))
        if math.isfinite(each.low):
            start, end = across(-factor * each.detectable), across(factor * each.detectable)
            shapes.append(Box(start, y - 13, end - start, 26, "soft", 0.1, "too small to be shown"))
            shapes.append(Line([(across(factor * e), y) for e in (each.low, each.high)], role, 3))
        if math.isfinite(each.mean):
            shapes.append(Dot(across(factor * each.mean), y, 6, role, each.verdict))
    shapes.append(Line([(across(0), 6), (across(0), bottom)], "ink", dashed=True))
    words = f"difference of {metric.title}{metric.unit}"
    shapes.append(Text((left + 560) / 2, bottom + 36, words, "middle"))
    label = "; ".join(
        f"{e.arm} - {e.baseline}: {metric.format_difference(e.mean)}" for e in comparisons
    )
    return Drawing("differences", label, 580, bottom + 42, shapes)


def draw_vertical_grid(
    across: Scale, top: float, bottom: float, *, whole: bool = False
) -> list[Shape]:
    """Lines and numbers of a horizontal scale; `whole`: of whole numbers only."""
    shapes: list[Shape] = []
    for value in across.choose_ticks():
        if whole and value != round(value):
            continue
        x = across(value)
        shapes += [
            Line([(x, top), (x, bottom)], "line"),
            Text(x, bottom + 17, f"{value:g}", "middle"),
        ]
    return shapes


def draw_curves(answer: Answer, metric: Metric) -> Drawing | None:
    """A metric or loss over the epochs: a line at the mean of the runs, a band from least to most.

    Args:
        answer: whose runs are drawn, finished or not, up to the last epoch that all of an arm have.
        metric: which.

    Returns:
        The drawing; None if no arm has values at two epochs.
    """
    column, words, factor = metric.name, metric.title, metric.factor
    bands = {arm.name: make_band(answer.results, arm.name, column) for arm in answer.arms}
    known = {name: band for name, band in bands.items() if len(band[0]) > 1}
    if not known:
        return None
    legend, top = draw_legend(list(bands))
    bottom = top + 216
    every = np.concatenate([factor * values.ravel() for _, values in known.values()])
    epochs = np.concatenate([band[0] for band in known.values()])
    across = Scale(min(epochs.min(), 1), epochs.max(), 58, 560)
    upward = make_scale(every.tolist(), bottom, top)
    shapes: list[Shape] = [*legend, *draw_vertical_grid(across, top, bottom, whole=True)]
    shapes += draw_horizontal_grid(upward)
    for number, name in enumerate(bands):
        if name in known:
            when, values = known[name]
            shapes += draw_band(across, upward, when, factor * values, number)
    shapes += [
        Text(309, bottom + 36, "epoch", "middle"),
        Text(12, (top + bottom) / 2, words, "middle", rotated=True),
    ]
    label = f"{words} over the epochs, by arm"
    return Drawing(f"curve_{column}", label, 580, bottom + 42, shapes)


def draw_horizontal_grid(upward: Scale) -> list[Shape]:
    """Lines and numbers of a vertical scale."""
    shapes: list[Shape] = []
    for value in upward.choose_ticks():
        y = upward(value)
        shapes += [Line([(58, y), (560, y)], "line"), Text(51, y + 4, f"{value:g}", "end")]
    return shapes


def draw_band(
    across: Scale, upward: Scale, when: np.ndarray, values: np.ndarray, number: int
) -> list[Shape]:
    """A band and its mean line; `when` [n], `values` [runs, n], `number` of the arm."""
    role = choose_role(number)

    def place(heights: np.ndarray) -> list[tuple[float, float]]:
        pairs = zip(when.tolist(), heights.tolist(), strict=True)
        return [(across(epoch), upward(height)) for epoch, height in pairs]

    outline = [*place(values.max(0)), *reversed(place(values.min(0)))]
    mean = Line(place(values.mean(0)), role, 2, dashed=is_dashed(number))
    return [Area(outline, role), mean]


def make_band(results: Sequence[RunResult], arm: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs at which all begun runs of an arm have a value, int64 [n], and these [runs, n]."""
    curves = [
        {
            int(row["epoch"]): row[column]
            for row in each.rows
            if math.isfinite(row.get(column, np.nan))
        }
        for each in results
        if each.run.arm.name == arm and each.rows
    ]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    values = np.array([[curve[epoch] for epoch in shared] for curve in curves])
    return np.array(shared, np.int64), values.reshape(len(curves), len(shared))
