import json

import pytest

from detector.commands import ablate
from detector.commands.compare_recipes import RECIPES, find_recipe
from tests.study.made_up import write_fake_train

WORDS = ["--cfg", "yolov4-pacsp-n-mish", "--out", "r", "train.epochs=1"]


@pytest.fixture
def fake(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "make_train_command", lambda: write_fake_train(tmp_path))
    monkeypatch.setattr("detector.study.runner.POLL", 0.01)
    return tool


def test_a_recipe_is_a_name_or_words():
    assert find_recipe("siou") == RECIPES["siou"]
    assert find_recipe("train.lr=0.1,loss.cls=1.0") == ("train.lr=0.1", "loss.cls=1.0")


def test_an_unknown_recipe(fake):
    status, _, err = fake("compare_recipes", *WORDS, "--recipes", "siuo")
    assert status == 2
    assert "unknown recipe 'siuo'; did you mean siou?" in err


def test_recipes_are_the_arms_of_a_study(fake, tmp_path):
    words = ["--recipes", "auto", "published", "train.lr=0.1,loss.cls=1.0", "--seeds", 3]
    status, out, err = fake("compare_recipes", *WORDS, *words)
    assert status == 0, err
    study = json.loads((tmp_path / "r" / "study.json").read_text())
    assert [(arm["name"], arm["words"]) for arm in study["arms"]] == [
        ("auto", []),
        ("published", ["recipe=published", "model.anchors=null"]),
        ("train.lr-0.1-loss.cls-1.0", ["train.lr=0.1", "loss.cls=1.0"]),
    ]
    assert (study["seeds"], study["baseline"]) == ([3], "auto")
    assert study["words"] == ["train.epochs=1"]
    assert "published against auto: no verdict: 1 finished pair(s)" in out
    assert "--seeds 3, " in json.loads((tmp_path / "r" / "report.json").read_text())["command"]
