"""Training with a validation split that has no object of the trained classes."""

import json

import pytest

from detector.engine import load_checkpoint
from tests.commands.running import SMALL

TINY = [*SMALL[1:], "data.size=64", "train.batch_size=4", "train.epochs=2", "train.patience=1"]


@pytest.fixture
def data(coco_root, tmp_path):
    """As `coco_root`, with a validation split whose images have no annotations."""
    train = coco_root / "annotations" / "instances_train2017.json"
    content = json.loads(train.read_text())
    content["annotations"] = []
    (coco_root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    if not (coco_root / "val2017").exists():
        (coco_root / "val2017").symlink_to(coco_root / "train2017")
    (tmp_path / "mine.yaml").write_text("format: coco\nroot: coco\n")
    return "mine.yaml"


def test_a_run_without_an_ap_ends_with_its_last_weights(tool, data, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", data, *TINY, "--out", "runs/a"]
    status, out, err = tool("train", *words)
    assert status == 0, err
    assert (
        "validation: none of its 3 images has a labelled object of the 2 trained classes: AP is"
        in out
    )
    assert out.count("AP none  AP50 none") == 2  # patience does not end it
    best = load_checkpoint(tmp_path / "runs/a/best.pt")
    assert best["metrics"]["AP"] == -1
    last = load_checkpoint(tmp_path / "runs/a/last.pt")
    assert all((best["weights"][key] == value).all() for key, value in last["weights"].items())
    status, out, err = tool("train", *words, "--seeds", 1)
    assert status == 0, err
    assert (
        out.splitlines()[-1]
        == "AP by seed: none, since the validation split has no labelled object"
    )


def test_one_value_per_channel_is_refused_before_the_run(tool, digits_yaml, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL[1:], "data.size=32"]
    status, _, err = tool("train", *words, "train.batch_size=11", "--out", "runs/a")  # of 12 images
    assert status == 2
    assert err.startswith(
        "error: 32 px and a batch of one image (12 images in batches of 11) leave Batch"
    )
    assert not (tmp_path / "runs").exists()
