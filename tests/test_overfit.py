"""The whole chain learns: a small network overfits four images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detector.data.digits.generate import make_digits

ROOT = Path(__file__).parents[1]
REPEATS = 10  # the images stand in an epoch so often: epochs cost time of their own
ANCHORS = "[[[5,6],[6,9],[9,12]],[[12,17],[17,23],[23,31]],[[30,41],[40,53],[50,66]]]"
WORDS = ["model.arch=yolov4-pacsp-n", f"model.anchors={ANCHORS}", "data.size=160"]
WORDS += ["train.batch_size=4", "train.nominal_batch=4", "train.lr=0.05", "train.ema_decay=0.9"]
WORDS += ["train.epochs=30", "train.eval_every=30", "train.warmup_epochs=1", "train.threads=1"]


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory):
    """Validates on the images that it trains on."""
    folder = tmp_path_factory.mktemp("overfit")
    make_digits(folder / "digits", 4, 1)
    train = folder / "digits" / "annotations" / "instances_train2017.json"
    content = json.loads(train.read_text())
    train.with_name("instances_val2017.json").write_text(json.dumps(content))
    for image in content["images"]:
        source = folder / "digits" / "train2017" / image["file_name"]
        (folder / "digits" / "val2017" / image["file_name"]).write_bytes(source.read_bytes())
    images, boxes = content["images"], content["annotations"]
    content["images"] = [
        {**image, "id": image["id"] + 1000 * number}
        for number in range(REPEATS)
        for image in images
    ]
    content["annotations"] = [
        {**box, "id": box["id"] + 1000 * number, "image_id": box["image_id"] + 1000 * number}
        for number in range(REPEATS)
        for box in boxes
    ]
    train.write_text(json.dumps(content))
    path = folder / "data.yaml"
    path.write_text("format: coco\nroot: digits\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["mish", "leaky_relu"])
def test_a_network_can_overfit_four_images(data_yaml, tmp_path, activation):
    """The smallest network in 300 steps; the published one is in CONTRIBUTING.md."""
    command = [sys.executable, ROOT / "tools" / "train.py", "--cfg", "overfit-s-mish.yaml"]
    command += ["--data", data_yaml, "--out", tmp_path / "run", *WORDS]
    command += [f"model.activation={activation}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  AP50")]
    assert float(line.split()[1]) > 0.6, done.stdout
