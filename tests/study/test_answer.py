import json
import math
import re

import numpy as np
import pytest

from detector.errors import UserError
from detector.study.answer import find_answer
from detector.study.collect import collect_results
from detector.study.page import make_page
from detector.study.plan import Arm, find_run_folder
from detector.study.text import format_markdown, format_text
from tests.study.made_up import ARMS, make_study, write_run

NOISE = np.random.default_rng(0).normal(0, 0.002, 12)


def make_answer(folder, gains, *, study=None, **options):
    """The answer to made-up runs: `gains` of the arms over 0.5, by name."""
    arms = tuple(Arm(name, (f"train.lr={n + 1}",)) for n, name in enumerate(gains))
    study = study or make_study(arms=arms, baseline=arms[0].name)
    for run, noise in zip(study.list_runs(), NOISE, strict=False):
        score = 0.5 + 0.05 * run.seed + gains[run.arm.name] + noise
        write_run(find_run_folder(folder, run), [score / 2, score])
    return find_answer(study, collect_results(study, folder), **options)


@pytest.fixture
def answer(tmp_path):
    return make_answer(tmp_path, {"mish": 0.0, "relu": -0.1, "swish": 0.0})


def test_verdicts(answer):
    relu, swish = answer.comparisons["AP"]
    assert (relu.arm, relu.baseline, relu.outcome) == ("relu", "mish", "worse")
    assert relu.low < -0.1 < relu.high
    assert relu.verdict.startswith("worse by ")
    assert swish.low < 0 < swish.high
    assert swish.verdict.startswith("no difference shown; these 3 pairs can show ")
    assert swish.p_holm >= swish.p


def test_an_arm_is_summarised_over_its_last_epochs(answer):
    mish = answer.arms[0]
    scores = [r.get_last("AP") for r in answer.results if r.run.arm.name == "mish"]
    assert mish.metrics["AP"].mean == pytest.approx(np.mean(scores))
    assert mish.metrics["AP"].sd == pytest.approx(np.std(scores, ddof=1))
    assert (mish.metrics["AP"].least, mish.metrics["AP"].greatest) == (min(scores), max(scores))
    assert math.isnan(mish.metrics["APs"].mean)  # no small objects
    assert (mish.metrics["loss_box"].mean, mish.seconds.mean) == (0.5, 10.5)
    assert mish.peak_memory.greatest == 2**30


def test_all_pairs(tmp_path):
    answer = make_answer(tmp_path, {"a": 0.0, "b": 0.0, "c": 0.0}, all_pairs=True)
    names = [(each.arm, each.baseline) for each in answer.comparisons["AP"]]
    assert names == [("b", "a"), ("c", "a"), ("c", "b")]


def test_holm_can_withdraw_a_difference(answer):
    """An interval that excludes 0, but not after the correction, is no difference either."""
    swish = answer.comparisons["AP"][1]
    values = {name: getattr(swish, name) for name in swish.__dataclass_fields__}
    doubtful = type(swish)(**{**values, "low": 0.001, "high": 0.02, "p": 0.03, "p_holm": 0.06})
    assert doubtful.outcome == "no difference shown"
    assert doubtful.verdict.startswith("no difference shown, after Holm's correction; ")


def test_only_pairs_that_both_arms_have_finished_count(tmp_path):
    study = make_study()
    for run in study.list_runs():
        if run.name != "relu-seed1":
            write_run(find_run_folder(tmp_path, run), [0.5], finished=run.name != "mish-seed2")
    answer = find_answer(study, collect_results(study, tmp_path))
    (only,) = answer.comparisons["AP"]
    assert len(only.differences) == 1
    assert only.verdict.startswith("no verdict: 1 finished pair")
    assert "2 of 6 runs are not finished" in format_text(answer)


def test_equal_runs(tmp_path):
    study = make_study()
    for run in study.list_runs():
        write_run(find_run_folder(tmp_path, run), [0.5])
    (only,) = find_answer(study, collect_results(study, tmp_path)).comparisons["AP"]
    assert only.verdict == "no difference shown: the pairs are equal"


def test_the_markdown_and_the_terminal_table(answer):
    text = format_markdown(answer, "python tools/ablate.py --seeds 3")
    assert "| arm | runs | AP | AP50 | AP75 | APs | APm | APl |" in text
    assert re.search(
        r"^\| mish \| 3 \| 5\d\.\d \| 6\d\.\d \| none \| none \| none \| none \|$", text, re.M
    )
    assert "Holm's correction is for 2 comparisons" in text
    assert "* relu against mish: worse by " in text
    assert "relu - mish" in format_text(answer)


@pytest.fixture
def classifiers(tmp_path):
    """Two arms of classifiers, of 97 and 96 % top-1; the second has the lower loss."""
    study = make_study(cfg="cnn6-mish-cls")
    for run, noise in zip(study.list_runs(), NOISE, strict=False):
        folder = find_run_folder(tmp_path, run)
        write_run(folder, [0.5])
        gain = 0.01 if run.arm.name == "mish" else 0.0
        row = f"0.3,9.5,{0.96 + gain + noise / 10},0.99,{0.1 + 5 * gain + noise}"
        rows = f"epoch,loss_cls,seconds,top1,top5,loss\n1,{row}\n2,{row}\n"
        folder.results.write_text(rows)
    return study, collect_results(study, tmp_path)


def test_classifiers_have_the_columns_of_table_1(classifiers):
    answer = find_answer(*classifiers)
    text = format_markdown(answer, "")
    assert "| arm | runs | mean accuracy | mean loss | sd of accuracy | mean top-5 |" in text
    top1 = answer.arms[0].metrics["top1"]
    assert f"| mish | 3 | {100 * top1.mean:.2f} | 0.15 | {100 * top1.sd:.2f} | 99.00 |" in text
    assert "relu against mish: worse by 1.0" in text
    assert answer.comparisons["top1"][0].verdict.endswith(" top-1")
    page = make_page(answer, "")
    assert "val loss by epoch" in page
    assert "cls loss by epoch" in page
    assert answer.as_json()["runs"][0]["top5"] == 0.99


def test_a_lower_loss_is_better(classifiers):
    answer = find_answer(*classifiers, metric="loss")
    (only,) = answer.comparisons["loss"]
    assert only.mean < 0
    assert only.outcome == "better"
    assert only.verdict == f"better by {abs(only.mean):.3g} val loss"
    assert "Differences of val loss, over runs with the same seed" in format_text(answer)
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", make_page(answer, "")))


def test_a_metric_that_the_runs_do_not_have(classifiers):
    with pytest.raises(UserError, match=r"--metric top2: no such metric; did you mean top5\?"):
        find_answer(*classifiers, metric="top2")


def test_json_has_no_nan(answer):
    tree = json.loads(json.dumps(answer.as_json(), allow_nan=False))
    assert tree["arms"][0]["metrics"]["APs"]["mean"] is None
    first = tree["comparisons"][0]
    assert (first["metric"], first["arm"], first["outcome"]) == ("AP", "relu", "worse")
    assert len(first["differences"]) == 3
    assert [run["finished"] for run in tree["runs"]] == [True] * 9


def test_the_page_is_self_contained_and_has_the_charts(answer):
    page = make_page(answer, "<command>")
    assert not re.search(r'(src|href)="|@import|https?://', page)
    assert page.count("<svg") == 5  # differences, scores, AP, two losses
    assert page.count("<polygon") == 9  # a band of three arms in three of them
    assert "&lt;command&gt;" in page
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", page))
    assert page.count("<circle") == 2 + 9


def test_a_page_of_one_run_without_a_difference(tmp_path):
    study = make_study(arms=ARMS, seeds=(0,))
    write_run(find_run_folder(tmp_path, study.list_runs()[0]), [0.5])
    page = make_page(find_answer(study, collect_results(study, tmp_path)), "")
    assert "no verdict: 0 finished pair(s)" in page
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", page))
