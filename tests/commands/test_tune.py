"""The command, with a stand-in for training: trials on held-out images, then fresh runs of the best."""

import json

import pytest

from detector.commands import ablate, tune
from tests.study.made_up import write_fake_train

pytest.importorskip("optuna")

WORDS = ["--cfg", "yolov4-pacsp-n-mish", "--space", "ranges.yaml", "--out", "t", "train.epochs=1"]


@pytest.fixture
def fake(tool, tmp_path, monkeypatch):
    for module in (ablate, tune):
        monkeypatch.setattr(module, "make_train_command", lambda: write_fake_train(tmp_path))
    monkeypatch.setattr("detector.study.runner.POLL", 0.01)
    (tmp_path / "ranges.yaml").write_text("train.lr: {low: 0.001, high: 0.1, log: true}\n")
    return tool


def read_calls(folder):
    """(folder of the run, its words) of each training."""
    lines = (folder / "calls.txt").read_text().splitlines()
    return [(json.loads(line)[0], json.loads(line)[-1]) for line in lines]


def test_a_search_from_the_command_line(fake, tmp_path, digits_yaml):
    words = [*WORDS, "--data", digits_yaml, "--trials", 3, "--jobs", 3]
    words += ["--top", 1, "--fresh-seeds", 2]
    status, out, err = fake("tune", *words)
    assert status == 0, err
    assert "trials train on 4/5 of the 12 training images; the rest scores them" in out
    trials = read_calls(tmp_path / "t")
    assert sorted(name for name, _ in trials) == ["trial0000", "trial0001", "trial0002"]
    for _, given in trials:
        assert given[given.index("--data") + 1] == "t/holdout.yaml"
        assert "train.seed=0" in given
    fresh = read_calls(tmp_path / "t" / "fresh")
    seeds = {word for _, given in fresh for word in given if word.startswith("train.seed")}
    assert seeds == {"train.seed=1000", "train.seed=1001"}
    assert {given[given.index("--data") + 1] for _, given in fresh} == {str(digits_yaml)}
    assert len(fresh) == 4  # the default and the best, twice each
    tree = json.loads((tmp_path / "t" / "report.json").read_text())
    assert [trial["state"] for trial in tree["trials"]] == ["finished"] * 3
    assert tree["confirmed"]["study"]["baseline"] == "default"
    assert "against default: " in (tmp_path / "t" / "report.md").read_text()
    assert "Verdict of fresh runs" in (tmp_path / "t" / "report.html").read_text()

    # the same command trains nothing again; more trials are added; another search is refused
    status, out, err = fake("tune", *words)
    assert status == 0, err
    assert "0 to train" in out
    assert len(read_calls(tmp_path / "t")) == 3
    status, _, err = fake("tune", *words, "train.batch_size=4")
    assert status == 2
    assert "tune.json: this folder holds another search (words differ)" in err


@pytest.mark.parametrize(
    ("space", "words", "expected"),
    [
        ("train.lrr: {low: 1, high: 2}", [], "ranges.yaml: command line: unknown key train.lrr"),
        ("train.lr: {low: -1.0, high: 2}", [], "ranges.yaml: command line: train.lr"),
        ("train.lr: {low: 0.1, high: 0.2}", ["train.lr=0.1"], "train.lr is set for all trials"),
        ("train.seed: {low: 1, high: 2}", [], "train.seed is set for all trials"),
        (None, ["train.seed=3"], "train.seed: the search sets it"),
        (None, ["--holdout", "0.9"], "--holdout 0.9: expected a share"),
        (None, ["--trials", "0"], "--trials and --jobs are 1 or more"),
        (None, ["--metric", "recall"], "--metric recall: no such metric"),
    ],
)
def test_mistakes(fake, tmp_path, digits_yaml, space, words, expected):
    if space is not None:
        (tmp_path / "ranges.yaml").write_text(space)
    status, _, err = fake("tune", *WORDS, "--data", digits_yaml, *words)
    assert status == 2
    assert expected in err
    assert not (tmp_path / "t").exists()


def test_optuna_is_an_extra(fake, monkeypatch, digits_yaml):
    monkeypatch.setattr(tune.importlib.util, "find_spec", lambda name: None)
    status, _, err = fake("tune", *WORDS, "--data", digits_yaml)
    assert status == 2
    assert "a search needs optuna: pip install 'detector[tune]'" in err
