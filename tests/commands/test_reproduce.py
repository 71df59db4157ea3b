"""tools/reproduce.py on a run of a few batches."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.commands import reproduce
from tests.commands.running import SMALL


@pytest.fixture
def run(tool, digits_yaml, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL]
    words += ["train.batch_size=4", "train.nominal_batch=8", "--batch-limit", "2"]
    assert tool("train", *words, "--out", "runs/a")[0] == 0
    manifest = json.loads((tmp_path / "runs/a/manifest.json").read_text())
    assert manifest["sessions"][0]["outcome"] == "stopped: after 2 batches"
    return tmp_path / "runs/a"


@pytest.mark.slow  # the test below has the rest, without a process
def test_bitwise_equal(tool, run):
    status, out, err = tool("reproduce", "runs/a")
    assert status == 0, err
    assert out == "bitwise equal: the losses of 3 batches of runs/a and runs/a-again\n"


def test_another_seed_is_detected_and_explained(tool, run, monkeypatch):
    """The repetition runs in this process: that it may be another one, the test above shows."""

    def train_here(command, *, env, check):
        words = command[command.index("--cfg") :]
        return subprocess.CompletedProcess(command, tool("train", *words)[0])

    config = run / "config.yaml"
    text = config.read_text()
    assert "seed: 0" in text
    config.write_text(text.replace("seed: 0", "seed: 1"))
    monkeypatch.setattr(reproduce, "subprocess", SimpleNamespace(run=train_here))
    status, out, err = tool("reproduce", "runs/a", "--out", "runs/other", "--batches", 1)
    assert status == 1, err
    assert out.startswith("different: batch 1 (epoch 1, batch 1): box 0.")
    assert "\n  weights: " in out


def test_what_cannot_be_reproduced(tool, run):
    assert tool("reproduce", "runs/none")[2].startswith("error: runs/none/config.yaml: no such")
    status, _, err = tool("reproduce", "runs/a", "--batches", 99)
    assert (status, err) == (
        2,
        "error: --batches 99: expected 1 to 20, the batches that a run records\n",
    )
    (run / "events.jsonl").unlink()
    status, _, err = tool("reproduce", "runs/a")
    assert status == 2
    assert "no recorded losses" in err
    assert not Path("runs/a-again").exists()
