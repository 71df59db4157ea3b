"""The commands as a user runs them; most in this process, which saves the import of torch."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.build import build_network
from detector.config import ModelConfig, replace_values
from detector.engine import Console, load_checkpoint, save_checkpoint
from detector.models import Header, save_darknet
from detector.weights.darknet import read_config
from tests.commands.running import ROOT, SMALL, table_of
from tests.models import darknet_texts as texts
from tests.models.networks import randomize_norms


def test_train_validate_detect(tool, digits_yaml, digits_root, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL]
    words += ["train.epochs=2", "train.batch_size=4", "train.eval_every=1"]
    status, out, err = tool("train", *words, "--out", "runs/first")
    assert status == 0, err
    run = tmp_path / "runs" / "first"
    assert {path.name for path in run.iterdir()} == {
        *("best.pt", "last.pt", "previous.pt", "config.yaml", "results.csv"),
        *("events.jsonl", "manifest.json", "evaluation.npz", ".lock"),
        *("train_batch.jpg", "val.jpg", "labels.png", "curves.png"),
    }
    assert len(table_of(out)) == 12
    assert "12 training and 5 validation images" in out
    assert cv2.imread(str(run / "train_batch.jpg")).shape[2] == 3
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss_box"]) > 0 for row in rows)

    # validation prints the same numbers, and does not change the run
    status, again, err = tool("val", "--weights", run / "best.pt", "--out", tmp_path / "v.jpg")
    assert status == 0, err
    assert table_of(again) == table_of(out)

    # the resolved config reproduces the run
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
    assert status == 1, err  # one cannot be read
    assert "skipped: " in out
    assert "broken.jpg" in out
    assert len(list((tmp_path / "runs" / "detect").iterdir())) == 6
    status, out, err = tool("detect", "--weights", run / "best.pt", broken)
    assert status == 2
    assert err == "error: none of the images can be read\n"


def test_a_stopped_run_resumes_to_the_same_weights(tool, digits_yaml, tmp_path, monkeypatch):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, *SMALL, "train.epochs=2"]
    assert tool("train", *words, "--out", "runs/whole")[0] == 0

    def stop(self, trainer, report):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Console, "on_epoch", stop)
        status, out, _ = tool("train", *words, "--out", "runs/stopped")
    assert status == 130
    assert "resume with: python tools/train.py --resume runs/stopped" in out
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


def test_a_coco_folder_with_faults_trains_and_reports_them(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    (coco_root / "train2017" / "b.jpg").write_bytes(b"\xff\xd8 truncated")
    (coco_root / "val2017" / "empty.jpg").write_bytes(b"")
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", "mine.yaml", *SMALL, "train.epochs=1"]
    status, out, err = tool("train", *words)
    assert status == 0, err
    assert "2 classes, 3 training and 3 validation images" in out
    assert "b.jpg: the jpeg is truncated" in out
    assert "annotation 5" in out
    assert "its ground truth counts as missed" in out
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
        (["--cfg", "yolov4-pacsp-n-mish", "train.log=[comet]"], "train.log"),
        (["--resume", "runs/none"], "no such checkpoint"),
    ],
)
def test_a_users_mistake_is_one_line(tool, digits_yaml, words, message):
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
    assert "it was trained on 10 classes (0, 1, 2, ...)" in err
    assert "has 2 classes (three, seven)" in err

    status, _, err = tool("val", "--weights", best, "model.activation=relu")
    assert status == 2
    assert "the checkpoint fixes this" in err

    content["config"]["model"]["arch"] = "yolov4-pacsp-s"
    save_checkpoint(tmp_path / "other.pt", content)
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


@pytest.mark.parametrize("name", ["train", "val", "detect", "show_batch", "bench_loader"])
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


@pytest.fixture
def my_darknet(tmp_path):
    """A user's own cfg and weights: ten classes, untrained."""
    torch.manual_seed(0)
    cfg, weights = tmp_path / "my.cfg", tmp_path / "my.weights"
    cfg.write_text(texts.everything(classes=10))
    model = randomize_norms(build_network(read_config(str(cfg)).model, 10))
    save_darknet(model, weights, header=Header(seen=77))
    return cfg, weights


def test_a_users_own_darknet_model_is_evaluated_and_trained(
    tool, my_darknet, digits_yaml, tmp_path
):
    cfg, weights = my_darknet
    words = ["--cfg", cfg, "--weights", weights, "--data", digits_yaml, *SMALL]
    status, out, err = tool("val", *words, "--out", "val.jpg")
    assert status == 0, err
    assert len(table_of(out)) == 12
    assert "10 of 10 convolutions, order darknet, 10 classes, seen 77 images" in out
    status, out, err = tool("train", *words, "train.epochs=1", "train.batch_size=4", "--out", "run")
    assert status == 0, err
    assert "weights from" in out
    best = tmp_path / "run" / "best.pt"
    status, out, err = tool("val", "--weights", best)
    assert status == 0, err
    assert tool("convert_weights", best, "-o", "back.weights")[0] == 0
    assert (tmp_path / "back.weights").stat().st_size == weights.stat().st_size


def test_darknet_weights_of_other_classes_start_a_cfg(tool, my_darknet, digits_yaml, tmp_path):
    """As usual with darknet: a cfg edited for the user's classes, weights trained on others."""
    cfg, weights = my_darknet
    theirs = read_config(str(cfg)).model
    text = texts.everything(classes=33)
    other = build_network(replace_values(theirs, {"darknet_cfg": text}), 33)
    save_darknet(randomize_norms(other), weights)
    words = ["--cfg", cfg, "--weights", weights, "--data", digits_yaml, *SMALL, "--out", "run"]
    status, out, err = tool("train", *words, "train.epochs=1", "train.batch_size=4")
    assert status == 0, err
    assert "10 of 10 convolutions, order darknet, 33 classes" in out
    assert "4 for 33 classes, here 10" in out
    status, _, err = tool("val", *words[:6])
    assert (status, err.count("\n")) == (2, 1)
    assert "it was trained on 33 classes" in err


def test_convert_round_trip(tool, my_darknet, tmp_path):
    cfg, weights = my_darknet
    status, _, err = tool("convert_weights", weights, "--cfg", cfg, "-o", "my.pt")
    assert status == 0, err
    status, _, err = tool("convert_weights", "my.pt", "-o", "back.weights")
    assert status == 0, err
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    status, _, err = tool("convert_weights", "my.pt", "-o", "back.weights")
    assert (status, err.count("\n")) == (2, 1)
    assert "exists already" in err
    status, _, err = tool("convert_weights", weights, "-o", "new.pt")
    assert (status, err.count("\n")) == (2, 1)
    assert "give its network" in err


def test_train_from_other_classes(tool, digits_yaml, tmp_path):
    """A head for other classes is initialised anew; the rest is transferred and reported."""
    model = randomize_norms(build_network(ModelConfig(arch="yolov4-pacsp-n"), 80))
    save_darknet(model, tmp_path / "n.weights", order="csp")
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, *SMALL, "train.epochs=1"]
    status, out, err = tool("train", *words, "--weights", "n.weights", "--out", "run")
    assert status == 0, err
    assert "6 for 80 classes, here 10" in out
    saved = load_checkpoint(tmp_path / "run" / "best.pt")
    assert saved["config"]["model"]["bn_eps"] == 1e-5
    status, again, err = tool("train", "--cfg", "run/config.yaml", "--out", "again")
    assert status == 0, err
    assert "6 for 80 classes, here 10" in again, "the run's config starts from the same weights"
    other = load_checkpoint(tmp_path / "again" / "best.pt")
    assert all(torch.equal(t, saved["weights"][n]) for n, t in other["weights"].items())


@pytest.mark.parametrize("protocol", ["letterbox", "pytorch_yolov4", "darknet"])
def test_protocols(tool, my_darknet, digits_yaml, protocol):
    cfg, weights = my_darknet
    words = ["--cfg", cfg, "--weights", weights, "--data", digits_yaml, *SMALL]
    status, out, err = tool("val", *words, "--out", "val.jpg", "--protocol", protocol)
    assert status == 0, err
    assert len(table_of(out)) == 12


def test_an_unknown_protocol(tool, my_darknet):
    cfg, weights = my_darknet
    status, _, err = tool("val", "--cfg", cfg, "--weights", weights, "--protocol", "yolov5")
    assert status == 2
    assert "eval.protocol" in err
    assert "'letterbox', 'rectangular', 'pytorch_yolov4' or 'darknet'" in err


def test_model_info(tool):
    status, out, err = tool("model_info", "--cfg", "yolov4-pacsp-s-mish.yaml", "--size", "640")
    assert status == 0, err
    assert out.splitlines()[-1].split() == ["all", "8,270,621", "20.890"]
    assert "head.levels.2" in out
    assert "255 x 20 x 20" in out
    status, _, err = tool("model_info", "--cfg", "yolov4-tiny", "--size", "100")
    assert (status, err.count("\n")) == (2, 1)


def test_model_info_of_a_cfg_and_of_a_classifier(tool, my_darknet):
    status, out, _ = tool("model_info", "--cfg", my_darknet[0])
    assert status == 0
    assert "10 classes, 64 x 64 pixels" in out
    status, out, _ = tool("model_info", "--cfg", "csdarknet53-omega")
    assert status == 0
    assert out.splitlines()[-1].split() == ["all", "27,642,184", "13.067"]


def test_get_weights_lists_and_refuses(tool):
    status, out, _ = tool("get_weights")
    assert status == 0
    assert "yolov4-pacsp-mish " in out
    status, _, err = tool("get_weights", "yolov4-csp")
    assert (status, err.count("\n")) == (2, 1)
    assert "by hand from https://" in err


def test_a_classifier_is_not_trained_as_a_detector(tool, digits_yaml):
    status, _, err = tool("train", "--cfg", "csdarknet53-omega", "--data", digits_yaml)
    assert (status, err.count("\n")) == (2, 1)
    assert "a classifier needs images of one class each: a folder per class" in err


def test_plot_activations(real_figures, tool, tmp_path):
    status, _, err = tool("plot_activations", "all", "--out", "pictures/all")
    assert status == 0, err
    assert cv2.imread(str(tmp_path / "pictures" / "all.png")) is not None
    assert "<svg" in (tmp_path / "pictures" / "all.svg").read_text()
    status, _, err = tool("plot_activations", "mihs")
    assert status == 2
    assert "did you mean mish?" in err
