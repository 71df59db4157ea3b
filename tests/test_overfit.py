"""The whole chain learns: a small network overfits eight images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detector.data.digits.generate import make_digits

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["mish", "leaky_relu"])
def test_a_network_can_overfit_eight_images(tmp_path, activation):
    """The smallest network in 200 steps; the published one is in CONTRIBUTING.md."""
    make_digits(tmp_path / "digits", 8, 1)
    annotations = tmp_path / "digits" / "annotations"
    train = (annotations / "instances_train2017.json").read_text()
    (annotations / "instances_val2017.json").write_text(train)
    for image in json.loads(train)["images"]:
        source = tmp_path / "digits" / "train2017" / image["file_name"]
        (tmp_path / "digits" / "val2017" / image["file_name"]).write_bytes(source.read_bytes())
    (tmp_path / "data.yaml").write_text("format: coco\nroot: digits\n")
    anchors = "[[[9,12],[12,17],[17,24]],[[24,33],[33,46],[45,62]],[[60,82],[80,105],[100,132]]]"
    words = [
        "model.arch=yolov4-pacsp-n",
        f"model.activation={activation}",
        f"model.anchors={anchors}",
    ]
    words += ["train.epochs=200", "train.lr=0.05", "train.ema_decay=0.9", "train.eval_every=200"]
    command = [sys.executable, ROOT / "tools" / "train.py", "--cfg", "overfit-s-mish.yaml"]
    command += ["--data", tmp_path / "data.yaml", "--out", tmp_path / "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  AP50")]
    assert float(line.split()[1]) > 0.6, done.stdout
