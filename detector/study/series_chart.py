"""The chart of a grid: a metric by the value of the key that arms are compared within."""

from detector.html_report.shapes import Area, Dot, Drawing, Line, Text
from detector.study.answer import Answer
from detector.study.plan import Arm, Study
from detector.study.study_charts import (
    Shape,
    choose_role,
    draw_horizontal_grid,
    draw_legend,
    is_dashed,
    make_scale,
)
from detector.study.study_metrics import Metric


def find_series(study: Study) -> dict[str, dict[str, Arm]]:
    """The arms as lines over the values of `study.within`.

    Returns:
        Name of a line -> value of the key -> arm. A line's name is what each value has an arm with:
        `mish` of the arms `model.depth=15 model.activation=mish` and `model.depth=17 ...`. Empty if the
        arms are not a grid.
    """
    key = study.within
    if key is None:
        return {}
    groups: dict[str, list[Arm]] = {}
    for arm in study.arms:
        for word in arm.find(key):
            groups.setdefault(word.partition("=")[2], []).append(arm)
    if len(groups) < 2:
        return {}
    shared = set.intersection(*({w for arm in arms for w in arm.words} for arms in groups.values()))
    series: dict[str, dict[str, Arm]] = {}
    for value, arms in groups.items():
        for arm in arms:
            name = " ".join(word.partition("=")[2] for word in arm.words if word in shared)
            series.setdefault(name, {})[value] = arm
    return series


def draw_series(answer: Answer, metric: Metric) -> Drawing | None:
    """Mean (line), least and greatest run (band) of each line of `find_series`; None without lines."""
    series, key = find_series(answer.study), answer.study.within
    spreads = {arm.name: arm.metrics[metric.name] for arm in answer.arms}
    known = [spread for spread in spreads.values() if spread.count]
    if not series or key is None or not known:
        return None
    legend, top = draw_legend(list(series))
    bottom, factor = top + 216, metric.factor
    places = _place_values([value for arms in series.values() for value in arms])
    across = make_scale(list(places.values()), 66, 552)
    ends = [factor * end for spread in known for end in (spread.least, spread.greatest)]
    upward = make_scale(ends, bottom, top)
    shapes: list[Shape] = [*legend, *draw_horizontal_grid(upward)]
    for value, place in places.items():
        x = across(place)
        shapes += [Line([(x, top), (x, bottom)], "line"), Text(x, bottom + 17, value, "middle")]
    for number, (name, arms) in enumerate(series.items()):
        role, ordered = choose_role(number), sorted(arms, key=places.__getitem__)
        line = [(across(places[v]), spreads[arms[v].name], v) for v in ordered]
        line = [each for each in line if each[1].count]
        highs = [(x, upward(factor * spread.greatest)) for x, spread, _ in line]
        lows = [(x, upward(factor * spread.least)) for x, spread, _ in line]
        means = [(x, upward(factor * spread.mean)) for x, spread, _ in line]
        shapes += [Area([*highs, *reversed(lows)], role)] if line else []
        shapes += [Line(means, role, 2, dashed=is_dashed(number))] if line else []
        for place, (_, spread, value) in zip(means, line, strict=True):
            shown = f"{metric.title} {metric.format_value(spread.mean, 2)}"
            title = f"{name}, {key}={value}: {shown}"
            shapes.append(Dot(*place, 4, role, title))
    shapes += [
        Text(309, bottom + 36, key, "middle"),
        Text(12, (top + bottom) / 2, metric.title, "middle", rotated=True),
    ]
    label = f"{metric.title} by {key}: {', '.join(series)}"
    return Drawing(f"series_{metric.name}", label, 580, bottom + 42, shapes)


def _place_values(values: list[str]) -> dict[str, float]:
    """Numbers where they belong on a scale, anything else at equal distances."""
    distinct = list(dict.fromkeys(values))
    try:
        return {value: float(value) for value in distinct}
    except ValueError:
        return {value: float(number) for number, value in enumerate(distinct)}
