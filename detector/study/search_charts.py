"""The charts of a search: its history, what each key explains, and the curves of its trials."""

import math

import numpy as np

from detector.html_report.shapes import Box, Dot, Drawing, Line, Text
from detector.study.search_report import SearchReport
from detector.study.study_charts import (
    LETTER,
    Scale,
    Shape,
    draw_vertical_grid,
    make_scale,
    shorten,
)

BAR = 26  # height of a key's row


def draw_history(report: SearchReport) -> Drawing | None:
    """A dot for each trial, grey where it was pruned, and the best so far as a line."""
    metric = report.metric
    known = [(t, metric.factor * t.score) for t in report.trials if not math.isnan(t.score)]
    if not known:
        return None
    across = Scale(-0.5, max(max(t.number for t, _ in known), 1) + 0.5, 58, 560)
    upward = make_scale([score for _, score in known], 250, 14)
    shapes: list[Shape] = [*draw_vertical_grid(across, 14, 250, whole=True)]
    shapes += draw_levels(upward)
    better = min if metric.lower_is_better else max
    best: list[tuple[float, float]] = []  # a staircase
    for trial, score in known:
        done = trial.state == "finished"
        value = metric.format_value(trial.score, 2)
        title = f"trial {trial.number} ({trial.state}): {value}; {trial.words}"
        x = across(trial.number)
        shapes.append(Dot(x, upward(score), 5, "accent" if done else "soft", title))
        if done:
            before = best[-1][1] if best else score
            best += [(x, before), (x, better(score, before))]
    if len(best) > 2:
        shapes.append(Line([(x, upward(y)) for x, y in best], "green", 2))
    shapes += [
        Text(309, 286, "trial", "middle"),
        Text(12, 132, metric.title, "middle", rotated=True),
    ]
    label = f"{metric.title} of each trial, and the best so far"
    return Drawing("history", label, 580, 292, shapes)


def draw_levels(upward: Scale) -> list[Shape]:
    """Lines and numbers of a vertical scale."""
    shapes: list[Shape] = []
    for value in upward.choose_ticks():
        y = upward(value)
        shapes += [Line([(58, y), (560, y)], "line"), Text(51, y + 4, f"{value:g}", "end")]
    return shapes


def draw_importances(report: SearchReport) -> Drawing | None:
    """A bar for each key: the share of the objective's variance that it explains."""
    if not report.importances:
        return None
    names = [shorten(name) for name in report.importances]
    left = 24 + LETTER * max(map(len, names))
    across = Scale(0, max(report.importances.values()) or 1.0, left + 8, 520)
    shapes: list[Shape] = []
    for row, (name, share) in enumerate(zip(names, report.importances.values(), strict=True)):
        y = BAR * row + 6
        shapes.append(Text(left, y + 14, name, "end", "ink"))
        shapes.append(Box(left + 8, y, across(share) - left - 8, 18, "accent", 0.8, f"{share:.3f}"))
        shapes.append(Text(across(share) + 6, y + 14, f"{100 * share:.0f} %"))
    label = "; ".join(f"{name} {100 * share:.0f} %" for name, share in report.importances.items())
    return Drawing("importances", label, 580, BAR * len(names) + 12, shapes)


def draw_trial_curves(report: SearchReport) -> Drawing | None:
    """The objective of each trial by epoch; pruned ones end early."""
    metric = report.metric
    curves = [(t, sorted(t.scores.items())) for t in report.trials if t.scores]
    if not curves:
        return None
    every = np.array([point for _, curve in curves for point in curve])
    across = Scale(1, max(float(every[:, 0].max()), 2), 58, 560)
    upward = make_scale((metric.factor * every[:, 1]).tolist(), 250, 14)
    shapes: list[Shape] = [*draw_vertical_grid(across, 14, 250, whole=True), *draw_levels(upward)]
    for trial, curve in curves:
        points = [(across(epoch), upward(metric.factor * score)) for epoch, score in curve]
        done = trial.state == "finished"
        shapes.append(Line(points, "accent" if done else "soft", 1.5, opacity=0.7 if done else 0.4))
    shapes += [
        Text(309, 286, "epoch", "middle"),
        Text(12, 132, metric.title, "middle", rotated=True),
    ]
    return Drawing("trials", f"{metric.title} of each trial by epoch", 580, 292, shapes)
