"""The commands that check data, and what training reports about it, as a user runs them."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from detector.config import load_config
from tests.commands.running import SMALL
from tests.data.scenes import scene

# the fixture's name is an argument's, too


def problem_kinds(path):
    """The kinds of problems in a report."""
    return {problem["kind"] for problem in json.loads(Path(path).read_text())["problems"]}


def test_check_data(real_figures, tool, digits_yaml, tmp_path):
    words = ["check_data", digits_yaml, "--json", "report.json", "--plot", "plots"]
    status, out, err = tool(*words, "--cfg", "yolov4-pacsp-n-mish", "--workers", 1)
    assert status == 0, err
    assert "small.yaml: 10 classes; at 320 px" in out
    assert "train, anchors: mean best IoU 0.8" in out
    assert "17 images decoded" in out
    assert "small data set" in problem_kinds("report.json")
    for split in ("train", "val"):
        labels = cv2.imread(str(tmp_path / "plots" / f"{split}-labels.png"))
        assert labels.shape == (900, 1500, 3)
        assert labels.std() > 20  # something is drawn
        sheet = cv2.imread(str(tmp_path / "plots" / f"{split}-images.jpg"))
        assert sheet.std() > 20
    assert tool("check_data", digits_yaml, "--fast", "--strict")[0] == 1


def test_check_data_with_errors_has_exit_status_one(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    (coco_root / "train2017" / "b.jpg").write_bytes(b"\xff\xd8 truncated")
    shutil.copy(coco_root / "train2017" / "a.jpg", coco_root / "val2017" / "a.jpg")
    status, out, _ = tool("check_data", "mine.yaml", "--json", "r.json")
    assert status == 1
    kinds = problem_kinds("r.json")
    assert {"unreadable image", "flat box", "box outside", "box partly outside"} <= kinds
    assert "b.jpg: the jpeg is truncated" in out
    assert "same image in two splits" in kinds
    assert "val2017/a.jpg = train2017/a.jpg" in out
    assert "unreadable image" not in tool("check_data", "mine.yaml", "--fast")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["mine.yaml", "data.size=320"], "name it by --cfg"),
        (["mine.yaml", "--workers", "0"], "--workers 0: expected 1 or more"),
        (["mine.yaml", "--cfg", "csdarknet53-omega"], "is a classifier; it detects no objects"),
        (["mine.yaml", "--json", "no/such/folder.json"], "cannot be written"),
    ],
)
def test_check_data_refuses(tool, coco_root, tmp_path, words, message):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    status, _, err = tool("check_data", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_an_unusable_annotation_file_is_one_line(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"image_id": 5', '"image_id": 99'))
    status, _, err = tool("check_data", "mine.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown image id 99" in err


def test_cluster_anchors_prints_lines_that_a_config_accepts(tool, digits_yaml, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml]
    status, out, err = tool("cluster_anchors", *words)
    assert status == 0, err
    before, after = (float(line.split("IoU ")[1].split(",")[0]) for line in out.splitlines()[1:3])
    assert after > before
    (tmp_path / "mine.yaml").write_text("extends: yolov4-pacsp-n-mish.yaml\n" + out)
    config = load_config("mine.yaml")
    assert [len(level) for level in config.model.anchors] == [3, 3, 3]
    assert tool("cluster_anchors", *words)[1] == out
    status, _, err = tool("cluster_anchors", "--cfg", "csdarknet53-omega", "--data", digits_yaml)
    assert (status, err.count("\n")) == (2, 1)


def test_too_few_boxes_for_anchors(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", "mine.yaml"]
    for command in (["cluster_anchors", *words], ["train", *words, "model.anchors=auto", *SMALL]):
        status, _, err = tool(*command)
        assert (status, err.count("\n")) == (2, 1)
        assert "instances_train2017.json: too few boxes: 9 anchors need boxes of at least 9" in err
        assert "remove model.anchors" in err
    assert not (tmp_path / "runs").exists()


def test_auto_anchors_are_saved_as_numbers_that_reproduce_the_run(tool, digits_yaml, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL, "train.epochs=1"]
    status, out, err = tool("train", *words, "model.anchors=auto", "--out", "runs/auto")
    assert status == 0, err
    assert "anchors of this data set: mean best IoU" in out
    saved = yaml.safe_load((tmp_path / "runs" / "auto" / "config.yaml").read_text())
    assert np.array(saved["model"]["anchors"]).shape == (3, 3, 2)
    status, again, err = tool("train", "--cfg", "runs/auto/config.yaml", "--out", "runs/again")
    assert status == 0, err
    assert "anchors of this data set" not in again
    one, other = (
        torch.load(tmp_path / "runs" / name / "last.pt", weights_only=True)
        for name in ("auto", "again")
    )
    anchors = torch.tensor(saved["model"]["anchors"])
    assert torch.equal(one["weights"]["anchors"], anchors)
    assert all(torch.equal(t, one["weights"][n]) for n, t in other["weights"].items())


def test_auto_anchors_need_a_data_set(tool):
    status, _, err = tool("model_info", "--cfg", "yolov4-pacsp-n-mish", "model.anchors=auto")
    assert (status, err.count("\n")) == (2, 1)
    assert "model.anchors: auto needs a data set: a run resolves it when it starts" in err
    status, _, err = tool("model_info", "--cfg", "yolov4-pacsp-n-mish", "model.anchors=aut")
    assert "model.anchors: should be 'auto' or 'published', not 'aut'" in err


def test_a_training_split_without_labels_stops_training(tool, coco_root, tmp_path):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    path = coco_root / "annotations" / "instances_train2017.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"annotations": [tree["annotations"][2]]}))  # the crowd
    status, _, err = tool("train", "--cfg", "yolov4-pacsp-n-mish", "--data", "mine.yaml", *SMALL)
    assert (status, err.count("\n")) == (2, 1)
    assert "none of its 3 images has a labelled object; for details: " in err
    assert "python tools/check_data.py" in err
    assert not (tmp_path / "runs").exists()


def test_training_reports_label_problems_and_resume_refuses_other_classes(
    tool, coco_root, tmp_path
):
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", "mine.yaml", *SMALL, "train.epochs=1"]
    status, out, err = tool("train", *words, "--out", "runs/a")
    assert status == 0, err
    reported = [line for line in out.splitlines() if line.startswith("labels: ")]
    assert 2 <= len(reported) <= 5
    assert any(
        "small data set: 2 of 2 splits; train: 2 labelled images" in line for line in reported
    )
    assert reported[-1].endswith("mine.yaml")

    for path in (coco_root / "annotations").iterdir():
        tree = json.loads(path.read_text())
        tree["categories"].append({"id": 9, "name": "nine"})
        path.write_text(json.dumps(tree))
    status, _, err = tool("train", "--resume", "runs/a")
    assert (status, err.count("\n")) == (2, 1)
    assert "it was trained on 2 classes (three, seven)" in err
    assert "now has 3 classes (three, seven, nine)" in err
    assert "--weights runs/a/last.pt" in err


def test_auto_anchors_with_weights_of_another_run(tool, digits_yaml, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL, "train.epochs=1"]
    assert tool("train", *words, "model.anchors=published", "--out", "runs/a")[0] == 0
    weights = ["--weights", "runs/a/best.pt"]
    status, out, err = tool("train", *words, *weights, "model.anchors=auto", "--out", "runs/b")
    assert status == 0, err
    assert "anchors    the config's are kept; the weights were trained with different ones" in out
    shutil.copy(tmp_path / "runs/b/best.pt", tmp_path / "b.pt")
    assert tool("val", "--weights", "b.pt")[0] == 0


@pytest.mark.parametrize("name", ["check_data", "cluster_anchors"])
def test_help_shows_an_example(tool, name):
    status, out, _ = tool(name, "--help")
    assert status == 0
    assert f"python tools/{name}.py" in out.split("example:")[1]


def test_a_yolo_folder_with_a_test_split(tool, tmp_path):
    """Every format has the same kinds of problems; a test split needs no labels, but a leak is one."""
    for split, first in (("train", 0), ("val", 10), ("test", 20)):
        for folder in ("images", "labels"):
            (tmp_path / "mine" / folder / split).mkdir(parents=True)
        for n in range(first, first + 4):
            path = tmp_path / "mine" / "images" / split / f"{n}.png"
            cv2.imwrite(str(path), scene(n, 48, 64))
            if split != "test":
                label = tmp_path / "mine" / "labels" / split / f"{n}.txt"
                label.write_text("0 0.5 0.5 0.4 0.4\n1 0.2 0.3 0.2 0.2\n")
    labels = tmp_path / "mine" / "labels" / "train"
    (labels / "0.txt").write_text("0 0.05 0.5 0.4 0.4\n")  # partly outside
    (labels / "1.txt").write_text("0 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.4 0.4\n")
    (labels / "2.txt").write_text("nonsense\n1 0.5 0.5 0.3 0.3\n")
    (labels / "99.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    images = tmp_path / "mine" / "images"
    shutil.copy(images / "train" / "3.png", images / "test" / "20.png")
    (tmp_path / "y.yaml").write_text(
        "path: mine\ntrain: images/train\nval: images/val\ntest: images/test\nnames: [cat, dog]\n"
    )
    status, out, err = tool("check_data", "y.yaml", "--json", "r.json")
    assert status == 1, err
    expected = {"label not parsed", "box partly outside", "duplicate box", "label without image"}
    expected |= {"same image in two splits", "small data set", "rare class"}
    assert problem_kinds("r.json") == expected
    assert "test/20.png = " in out
