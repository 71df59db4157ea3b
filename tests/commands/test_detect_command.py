"""tools/detect.py as a user runs it: what it reads, what it writes, how it ends."""

import json

import cv2
import numpy as np
import pytest
import torch

from detector import Detector
from detector.build import build_model
from detector.config import Config, ModelConfig, config_to_dict, replace_values
from detector.engine import save_checkpoint
from tests.api.test_frame_sources import write_video
from tests.models.networks import randomize_norms

NAMES = ["cat", "dog/hound", "10"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(5)
    config = Config(model=ModelConfig(arch="yolov4-pacsp-n", activation="mish"))
    config = replace_values(config, {"data.size": 96})
    model = randomize_norms(build_model(config.model, len(NAMES)))
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if name.endswith("bias"):
                parameter += 3.0
    content = {"config": config_to_dict(config), "names": NAMES, "weights": model.state_dict()}
    save_checkpoint(folder / "best.pt", content)
    return folder / "best.pt"


@pytest.fixture
def detect(tool, weights):
    words = ["--weights", weights, "--device", "cpu", "--precision", "fp32", "--conf", "0.2"]
    return lambda *more: tool("detect", *words, *more)


@pytest.fixture
def photos(tmp_path, rng):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (60, 90, 3), np.uint8))
    return folder


def test_everything_that_can_be_written(detect, photos, weights, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no image")
    write_video(photos / "clip.mp4", frames=3, fps=12.0)
    options = ["--json-lines", "--yolo", "--coco", "--crops", "--batch", "2"]
    status, out, err = detect(photos, *options, "--out", "found")
    assert status == 1, err  # one could not be read
    assert f"skipped: {photos / 'broken.jpg'}: " in out
    assert "1 of 6 could not be read" in out
    assert "images/s" in out
    found = tmp_path / "found"
    video = cv2.VideoCapture(str(found / "clip.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 12.0)
    assert cv2.imread(str(found / "0001_a.jpg")).shape == (60, 90, 3)
    rows = [json.loads(line) for line in (found / "detections.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [None, None, 0, 1, 2]
    assert [row["source"] for row in rows[:2]] == [str(photos / n) for n in ("a.jpg", "b.png")]
    counts = [len(row["detections"]) for row in rows]
    assert min(counts[:2]) > 0
    model = Detector(weights, device="cpu", precision="fp32", conf=0.2)
    expected = model([photos / name for name in ("a.jpg", "b.png")], batch_size=2)[0]
    boxes = torch.tensor([each["box_xyxy"] for each in rows[0]["detections"]])
    torch.testing.assert_close(boxes, expected.boxes_xyxy, atol=1e-2, rtol=0)
    labels = sorted((found / "labels").iterdir())
    assert [path.name for path in labels[:2]] == ["0001_a.txt", "0002_b.txt"]
    assert len(labels[0].read_text().splitlines()) == counts[0]
    coco = json.loads((found / "coco.json").read_text())
    assert [image["width"] for image in coco["images"]] == [90, 90, 64, 64, 64]
    assert len(coco["annotations"]) == sum(counts)
    assert [category["name"] for category in coco["categories"]] == NAMES
    crops = list((found / "crops").rglob("*.jpg"))
    assert len(crops) == sum(counts)
    assert {path.parent.name for path in crops} <= {"cat", "dog_hound", "10"}


def test_tiles_and_options(detect, photos, tmp_path):
    options = ["--tile", "48", "--classes", "cat", "--no-pictures", "--json-lines", "--limit", "1"]
    status, out, err = detect(photos, *options, "--out", "found")
    assert status == 0, err
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["detections.jsonl"]
    (row,) = (tmp_path / "found/detections.jsonl").read_text().splitlines()
    assert {each["name"] for each in json.loads(row)["detections"]} == {"cat"}
    assert "1 images: found" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--conf", "2"], "--conf 2: expected a score between 0 and 1"),
        (["--conf", "none.json"], "none.json: no such file"),
        (["--classes", "cow"], "unknown class 'cow'; the model has cat, dog/hound, 10"),
        (["--tile", "3"], "tile=3: expected at least 32 pixels"),
        (["--out", "/dev/null/x"], "/dev/null"),
    ],
)
def test_a_mistake_is_one_line(detect, photos, words, message):
    status, _, err = detect(photos, *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_nothing_can_be_read(detect, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    status, out, err = detect("empty.jpg")
    assert (status, err) == (2, "error: none of the images can be read\n")
    assert "skipped: empty.jpg: " in out
