import json

import pytest

from detector.commands import ablate
from detector.study.plan import load_study
from tests.study.made_up import write_fake_train

WORDS = ["--cfg", "yolov4-pacsp-n-mish", "--data", "digits.yaml", "--out", "st", "train.epochs=1"]
VARY = ["--vary", "model.activation=mish,relu"]


@pytest.fixture
def fake(tool, tmp_path, monkeypatch):
    """The command, with a stand-in for training."""
    monkeypatch.setattr(ablate, "make_train_command", lambda: write_fake_train(tmp_path))
    monkeypatch.setattr("detector.study.runner.POLL", 0.01)
    return tool


def test_a_study_from_the_command_line(fake, tmp_path):
    status, out, err = fake("ablate", *WORDS, *VARY, "--seeds", 3, "--jobs", 3)
    assert status == 0, err
    assert "6 runs of 2 arms (mish, relu), 0 finished; 6 epochs to train, 3 at a time" in out
    assert "relu against mish: worse by 10.00 AP" in out
    tree = json.loads((tmp_path / "st" / "report.json").read_text())
    assert tree["comparisons"][0]["mean"] == pytest.approx(-0.1)
    assert tree["command"] == (
        "python tools/ablate.py --cfg yolov4-pacsp-n-mish --data digits.yaml "
        "--vary model.activation=mish,relu --seeds 3 --out st train.epochs=1"
    )
    assert tree["command"] in (tmp_path / "st" / "report.md").read_text()
    assert (tmp_path / "st" / "report.html").exists()


def test_a_study_continues_in_shards_and_with_more_seeds(fake, tmp_path):
    base = [*WORDS, *VARY, "--baseline", "relu"]
    status, out, err = fake("ablate", *base, "--seeds", 2, "--shard", "1/2")
    assert status == 0, err
    assert "no verdict: 1 finished pair(s)" in out
    fake("ablate", *base, "--seeds", 2, "--shard", "2/2")
    status, out, err = fake("ablate", *base, "--seeds", "0,1,5")
    assert status == 0, err
    assert "6 runs of 2 arms (mish, relu), 4 finished; 2 epochs to train" in out
    calls = (tmp_path / "st" / "calls.txt").read_text().splitlines()
    assert len(calls) == 6
    status, out, _ = fake("ablate", "--report", "st", "--metric", "AP50")
    assert status == 0
    assert "mish against relu: no verdict: 0 finished pair(s)" in out
    assert len((tmp_path / "st" / "calls.txt").read_text().splitlines()) == 6


def test_classifiers(fake, tmp_path):
    words = ["--cfg", "cnn6-mish-cls", "--out", "st", "train.epochs=1", *VARY, "--seeds", 2]
    status, out, err = fake("ablate", *words, "--metric", "top5")
    assert status == 0, err
    assert "relu-seed1: top-1 51.0; " in out
    assert "relu against mish: worse by 10.00 top-5" in out
    assert json.loads((tmp_path / "st" / "report.json").read_text())["metric"] == "top5"
    mixed = ["--cfg", "cnn6-mish-cls", "--vary", "model.arch=cnn6,yolov4-pacsp-n", "--out", "other"]
    status, _, err = fake("ablate", *mixed)
    assert status == 2
    assert "some arms are classifiers and some detectors" in err


def test_a_cross_validation(fake, tmp_path, digits_yaml):
    """Each run of a fold is given the fold's data YAML; both arms have the same."""
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, "--out", "st", "train.epochs=1"]
    folds = ["--folds", 3, "--group-by", r"0000(\d+)"]
    status, out, err = fake("ablate", *words, *VARY, *folds)
    assert status == 0, err
    assert "6 runs of 2 arms" in out
    # train and val have images of the same numbers, which the expression groups
    assert "3 folds of the 17 images of train and val in 12 groups: about 6 validate a fold" in out
    assert "2 arms x 1 seed x 3 folds, paired" in out
    calls = map(json.loads, (tmp_path / "st" / "calls.txt").read_text().splitlines())
    data = {name: words[words.index("--data") + 1] for name, _, _, _, words in calls}
    for fold in range(3):
        path = f"st/folds/seed0-fold{fold}.yaml"
        assert data[f"mish-seed0-fold{fold}"] == data[f"relu-seed0-fold{fold}"] == path
        assert (tmp_path / path).exists()
    command = json.loads((tmp_path / "st" / "report.json").read_text())["command"]
    assert "--seeds 1 --folds 3 --pool train,val --group-by '0000(\\d+)'" in command


def test_a_dry_run_writes_nothing(fake, tmp_path):
    status, out, _ = fake("ablate", *WORDS, *VARY, "--dry-run")
    assert status == 0
    assert "10 runs of 2 arms" in out
    assert not (tmp_path / "st").exists()


def test_arms_of_several_keys_are_written_as_they_were_given(fake, tmp_path):
    arms = ["--arm", "plain: bag=none train.lr=0.1", "--arm", "default:"]
    status, _, err = fake("ablate", *WORDS, *arms, "--seeds", 1)
    assert status == 0, err
    command = ablate.format_study_command(load_study(tmp_path / "st"), tmp_path / "st")
    assert "--arm 'plain: bag=none train.lr=0.1' --arm default: --seeds 1" in command


def test_failed_runs_end_in_an_error(fake, tmp_path):
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "fail").touch()
    status, out, err = fake("ablate", *WORDS, *VARY, "--seeds", 1)
    assert status == 2
    assert "1 run(s) failed: relu-seed0; the same command tries again" in err
    assert "error: it fails" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "a study needs two arms or more"),
        (
            ["--vary", "model.activation=mish,rellu"],
            "arm rellu: unknown activation 'rellu'; did you mean relu?",
        ),
        (["--vary", "model.activatoin=mish,relu"], "arm mish: command line: unknown key"),
        ([*VARY, "--seeds", "0"], "expected 1 or more"),
        ([*VARY, "--seeds", "x"], "expected a number of seeds"),
        ([*VARY, "train.seed=3"], "--seeds sets it"),
        ([*VARY, "--jobs", "0"], "--jobs 0: expected 1 or more"),
        ([*VARY, "--shard", "3/2"], "expected i/n"),
        ([*VARY, "--baseline", "swish"], "no such arm"),
        ([*VARY, "--metric", "recall"], "--metric recall: no such metric (these runs have AP, "),
        ([*VARY, "--folds", "1"], "--folds 1: expected 2 or more"),
        ([*VARY, "--group-by", "x"], "give --folds, too"),
        ([*VARY, "--folds", "3", "--pool", "train,vla"], "--pool train,vla: expected splits"),
    ],
)
def test_mistakes(fake, tmp_path, words, expected):
    status, _, err = fake("ablate", *WORDS, *words)
    assert status == 2
    assert expected in err
    assert not (tmp_path / "st").exists()


def test_a_report_without_a_study(fake):
    status, _, err = fake("ablate", "--report", "nothing")
    assert status == 2
    assert "study.json: no such file" in err
