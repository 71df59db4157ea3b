"""The chart of a grid of arms."""

import pytest

from detector.html_report.shapes import Area, Dot, Line, Text
from detector.study.answer import find_answer
from detector.study.collect import collect_results
from detector.study.page import make_page
from detector.study.plan import find_run_folder, parse_arm, parse_variations
from detector.study.series_chart import draw_series, find_series
from detector.study.study_charts import draw_legend, is_dashed
from tests.study.made_up import make_study, write_run

DEPTHS = parse_variations(["model.depth=15,25", "model.activation=mish,relu"])
SCORES = {"15+mish": 0.6, "15+relu": 0.5, "25+mish": 0.5, "25+relu": 0.2}


def make_grid(arms, within: str | None = "model.depth"):
    return make_study(arms=tuple(arms), baseline=arms[0].name, within=within)


def name_arms(study):
    return {
        line: {value: arm.name for value, arm in arms.items()}
        for line, arms in find_series(study).items()
    }


def test_lines_are_what_every_value_has():
    assert name_arms(make_grid(DEPTHS)) == {
        "mish": {"15": "15+mish", "25": "25+mish"},
        "relu": {"15": "15+relu", "25": "25+relu"},
    }
    words = ["bag.noise={0} eval.noise={0} model.activation=mish", "eval.noise={0} bag.noise={0}"]
    texts = [f"{n}-{v}: {word.format(v)}" for v in (0.1, 0.5) for n, word in enumerate(words)]
    assert name_arms(make_grid([parse_arm(text) for text in texts], "eval.noise")) == {
        "mish": {"0.1": "0-0.1", "0.5": "0-0.5"},
        "": {"0.1": "1-0.1", "0.5": "1-0.5"},
    }


@pytest.mark.parametrize("study", [make_study(), make_grid(DEPTHS, None), make_grid(DEPTHS[:2])])
def test_what_is_not_a_grid_has_no_lines(study):
    assert find_series(study) == {}


def test_means_over_the_values(tmp_path):
    study = make_grid(DEPTHS)
    for run in study.list_runs():
        score = SCORES[run.arm.name] + 0.1 * (run.seed == 2)
        write_run(find_run_folder(tmp_path, run), [score])
    answer = find_answer(study, collect_results(study, tmp_path))
    drawing = draw_series(answer, answer.metric)
    assert drawing is not None
    titles = [shape.title for shape in drawing.shapes if isinstance(shape, Dot)]
    assert titles == [
        "mish, model.depth=15: AP 63.33",
        "mish, model.depth=25: AP 53.33",
        "relu, model.depth=15: AP 53.33",
        "relu, model.depth=25: AP 23.33",
    ]
    mish, relu = [s for s in drawing.shapes if isinstance(s, Line) and s.width == 2]
    assert mish.points[0] < mish.points[1]  # from left to right, and lower
    assert mish.points[1] == pytest.approx((relu.points[1][0], relu.points[0][1]))
    assert sum(isinstance(shape, Area) for shape in drawing.shapes) == 2
    assert "AP by model.depth" in make_page(answer, "")


def test_a_long_legend_has_rows():
    names = [f"an arm with number {number}" for number in range(8)]
    shapes, top = draw_legend(names)
    assert all(isinstance(shape, Text) and shape.x < 560 for shape in shapes)
    assert len({shape.y for shape in shapes if isinstance(shape, Text)}) == (top - 16) // 18
    assert [is_dashed(number) for number in (0, 5, 6, 11, 12)] == [False, False, True, True, False]
