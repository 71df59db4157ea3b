"""The commands as a user runs them; most in this process, which saves the seconds torch needs."""

import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector import cli
from detector.engine import Console

ROOT = Path(__file__).parents[1]
SMALL = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]


def load_main(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """tool("train", "--cfg", ...) -> (exit status, what it printed, what it said on stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, words)])
        status = 0
        try:
            cli.run(load_main(name))
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def table_of(text):
    """The twelve lines of numbers."""
    return [line for line in text.splitlines() if line.startswith(("  AP", "  AR"))]


def test_train_validate_detect(tool, digits_yaml, digits_root, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL]
    words += ["train.epochs=2", "train.batch_size=4", "train.eval_every=1"]
    status, out, err = tool("train", *words, "--out", "runs/first")
    assert status == 0, err
    run = tmp_path / "runs" / "first"
    assert {path.name for path in run.iterdir()} == {
        *("best.pt", "last.pt", "config.yaml", "results.csv", "train_batch.jpg", "val.jpg"),
    }
    assert len(table_of(out)) == 12
    assert "12 training and 5 validation images" in out
    assert cv2.imread(str(run / "train_batch.jpg")).shape[2] == 3
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss_box"]) > 0 for row in rows)

    # validation prints the same numbers, and does not touch the run
    status, again, err = tool("val", "--weights", run / "best.pt", "--out", tmp_path / "v.jpg")
    assert status == 0, err
    assert table_of(again) == table_of(out)

    # the resolved config makes the same run
    status, copy, err = tool("train", "--cfg", run / "config.yaml", "--out", "runs/first")
    assert status == 0, err
    other = tmp_path / "runs" / "first-2"
    first, second = (torch.load(p / "last.pt", weights_only=True) for p in (run, other))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    assert table_of(copy) == table_of(out)

    # detection: a file, a folder, and a broken file
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    images = [digits_root / "val2017" / "000001.jpg", broken, digits_root / "val2017"]
    status, out, err = tool("detect", "--weights", run / "best.pt", "--conf", "0.01", *images)
    assert status == 0, err
    assert "left out: " in out
    assert "broken.jpg" in out
    assert len(list((tmp_path / "runs" / "detect").iterdir())) == 6
    status, out, err = tool("detect", "--weights", run / "best.pt", broken)
    assert status == 2
    assert err == "error: none of the images can be read\n"


def test_a_stopped_run_goes_on_to_the_same_weights(tool, digits_yaml, tmp_path, monkeypatch):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, *SMALL, "train.epochs=2"]
    assert tool("train", *words, "--out", "runs/whole")[0] == 0

    def stop(self, trainer, report):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Console, "on_epoch", stop)
        status, out, _ = tool("train", *words, "--out", "runs/stopped")
    assert status == 130
    assert "go on with: python tools/train.py --resume runs/stopped" in out
    status, _, err = tool("train", "--resume", "runs/stopped")
    assert status == 0, err
    whole, resumed = (
        torch.load(tmp_path / "runs" / name / "last.pt", weights_only=True)
        for name in ("whole", "stopped")
    )
    for name, value in whole["weights"].items():
        assert torch.equal(value, resumed["weights"][name]), name
    rows = (tmp_path / "runs" / "stopped" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]


def test_coco_folder_with_faults_trains_and_names_them(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    (coco_root / "train2017" / "b.jpg").write_bytes(b"\xff\xd8 truncated")
    (coco_root / "val2017" / "empty.jpg").write_bytes(b"")
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", "mine.yaml", *SMALL, "train.epochs=1"]
    status, out, err = tool("train", *words)
    assert status == 0, err
    assert "2 classes, 3 training and 3 validation images" in out
    assert "b.jpg: the jpeg is truncated" in out
    assert "annotation 5" in out
    assert "its truths count as missed" in out
    assert (tmp_path / "runs" / "yolov4-pacsp-n-mish" / "best.pt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cfg", "yolov4-pacsp-mihs.yaml"], "did you mean yolov4-pacsp-mish.yaml?"),
        (["--cfg", "yolov4-pacsp-n-mish", "train.epoch=3"], "did you mean train.epochs?"),
        (["--cfg", "yolov4-pacsp-n-mish", "model.activation=mihs"], "did you mean mish?"),
        (["--cfg", "yolov4-pacsp-n-mish", "model.arch=yolov5"], "unknown model.arch 'yolov5'"),
        (["--cfg", "yolov4-pacsp-n-mish", "data.size=100"], "try 96 or 128"),
        (["--cfg", "yolov4-pacsp-n-mish", "--data", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--cfg", "yolov4-pacsp-n-mish", "train.device=cuda:77"], "try cpu"),
        (["--resume", "runs/none"], "no such checkpoint"),
    ],
)
def test_what_the_user_got_wrong_is_one_line(tool, digits_yaml, words, message):
    words = [*words, *([] if "--data" in words or "--resume" in words else ["--data", digits_yaml])]
    status, _, err = tool("train", *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert not Path("runs").exists()


def test_no_coco_on_disk(tool, tmp_path):
    (tmp_path / "coco.yaml").write_text((ROOT / "data" / "coco.yaml").read_text())
    status, _, err = tool("train", "--cfg", "yolov4-pacsp-mish.yaml", "--data", "coco.yaml")
    assert status == 2
    assert err.count("\n") == 1
    assert "annotations/instances_train2017.json" in err
    assert "--data digits.yaml" in err


def test_wrong_checkpoints(tool, digits_yaml, tmp_path, coco_root):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL, "train.epochs=1"]
    assert tool("train", *words, "--out", "runs/a")[0] == 0
    best = tmp_path / "runs" / "a" / "best.pt"
    content = torch.load(best, weights_only=True)

    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    status, _, err = tool("val", "--weights", best, "--data", "mine.yaml")
    assert status == 2
    assert "it knows 10 classes (0, 1, 2, ...)" in err
    assert "has 2 classes (three, seven)" in err

    status, _, err = tool("val", "--weights", best, "model.activation=relu")
    assert status == 2
    assert "the checkpoint fixes this" in err

    content["config"]["model"]["arch"] = "yolov4-pacsp-s"
    torch.save(content, tmp_path / "other.pt")
    status, _, err = tool("val", "--weights", tmp_path / "other.pt")
    assert status == 2
    assert "other.pt: weights of another model" in err

    shutil.copy(best, tmp_path / "runs" / "a" / "last.pt")
    status, _, err = tool("train", "--resume", "runs/a")
    assert status == 2
    assert "it holds weights only" in err

    noise = np.random.default_rng(0).bytes(5000)
    (tmp_path / "noise.pt").write_bytes(noise)
    status, _, err = tool("detect", "--weights", tmp_path / "noise.pt", "x.jpg")
    assert status == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["train", "val", "detect"])
def test_help_shows_an_example(tool, name):
    status, out, _ = tool(name, "--help")
    assert status == 0
    assert f"python tools/{name}.py" in out.split("example:")[1]


def test_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "train.py", "--cfg", "x.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: x.yaml: no such file")
    assert "Traceback" not in done.stderr
