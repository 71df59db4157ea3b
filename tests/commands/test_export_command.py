"""tools/export.py: what it writes and prints, that it removes a file that differs, users' mistakes."""

import json
from pathlib import Path

import pytest
import torch

from detector.api import model_export
from detector.api.export_check import TOLERANCES, Difference, require_same_ap, require_within
from detector.errors import UserError
from detector.export import InferenceModel, open_exported
from detector.weights.load import load_model
from tests.commands.running import table_of
from tests.export.small_network import make_config, save_small

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def checkpoint(digits_root, tmp_path_factory):
    """The network as a checkpoint that names the small digits data set."""
    folder = tmp_path_factory.mktemp("checkpoint")
    yaml = folder / "small.yaml"
    yaml.write_text(f"format: coco\nroot: {digits_root}\nmirrors: false\n")
    return save_small(folder / "best.pt", make_config(yaml))


def test_export_then_val_and_detect(tool, checkpoint, digits_root, tmp_path):
    """The file finds what the checkpoint finds."""
    yaml = checkpoint.with_name("small.yaml")
    out = tmp_path / "new" / "small.onnx"
    words = ["--weights", checkpoint, "--out", out, "--data", yaml]
    status, printed, err = tool(
        "export", *words, "--nms", "--fixed", "2", "--conf", "0.01", "--json", "e.json"
    )
    assert status == 0, err
    difference, ap, written = printed.splitlines()
    assert difference.startswith("largest difference to PyTorch on 5 images, 1500 boxes: score ")
    assert ap.endswith("(tolerance 0.001)")
    assert "batch 2, 64 x 64 px, NMS inside (conf 0.01, IoU 0.65)" in written
    assert [path.name for path in out.parent.iterdir()] == ["small.onnx"]
    assert open_exported(out).metadata.conf == 0.01
    content = json.loads(Path("e.json").read_text())
    assert content["files"] == [str(out)]
    assert 0 < content["difference"]["score"] < 1e-4
    assert content["ap"] == pytest.approx(content["pytorch_ap"], abs=1e-3)

    words = ["train.precision=fp32", "eval.conf=0.01", "--json"]
    assert tool("val", "--weights", checkpoint, *words, "a.json")[0] == 0
    status, printed, err = tool("val", "--weights", out, *words[1:], "b.json")
    assert status == 0, err
    assert len(table_of(printed)) == 12
    before, after = (json.loads(Path(name).read_text())[0] for name in ("a.json", "b.json"))
    assert after["metrics"]["AP50"] == pytest.approx(before["metrics"]["AP50"], abs=1e-4)

    images = digits_root / "val2017"
    listed = []
    for file in (checkpoint, out):
        status, printed, err = tool("detect", "--weights", file, "--conf", "0.3", images)
        assert status == 0, err
        listed.append([line for line in printed.splitlines() if line.startswith(str(images))])
    assert len(listed[0]) == 5
    assert listed[0] == listed[1]


def test_a_file_that_differs_is_removed(tool, checkpoint, tmp_path, monkeypatch):
    class Wrong(InferenceModel):
        def forward(self, images):
            boxes, scores = super().forward(images)
            return boxes, scores * 0.99

    monkeypatch.setattr("detector.export.writers.InferenceModel", Wrong)
    out = tmp_path / "new" / "small.pt2"
    out.parent.mkdir()
    out.write_text("the last good one")
    words = ["--weights", checkpoint, "--format", "torch_export", "--fixed", "--out", out]
    status, _, err = tool("export", *words)
    assert status == 2
    assert "the exported file differs from PyTorch: score 0.0" in err
    assert err.count("\n") == 1
    assert [path.name for path in out.parent.iterdir()] == ["small.pt2"]
    assert out.read_text() == "the last good one"
    status, printed, err = tool("export", *words, "--tolerance", "0.02")
    assert status == 0, err
    assert "(tolerance 0.02, 0.1 px)" in printed


@pytest.mark.parametrize(
    ("difference", "precision", "what"),
    [
        (Difference(score=2e-4), "fp32", "score"),
        (Difference(box=0.2), "fp32", "box"),
        (Difference(compared=100, unmatched=1), "fp32", "detections without a counterpart"),
        (Difference(compared=100, unmatched=3), "fp16", "detections without a counterpart"),
        (Difference(score=0.9, box=99, compared=9, unmatched=9), "int8", None),
        (Difference(score=1e-5, box=0.05, compared=1560, unmatched=2), "fp32", None),
    ],
)
def test_tolerances(difference, precision, what):
    if what is None:
        require_within("a", difference, TOLERANCES[precision])
        return
    with pytest.raises(UserError, match=f"differs from PyTorch: {what}"):
        require_within("a", difference, TOLERANCES[precision])


def test_a_nan_is_a_difference():
    difference = Difference()
    difference.update(torch.tensor([0.0, float("nan")]), torch.zeros(0, 4))
    assert difference.score == float("inf")
    with pytest.raises(UserError, match="score inf"):
        require_within("a", difference, TOLERANCES["fp32"])
    with pytest.raises(UserError, match="AP nan"):
        require_same_ap("a", 0.5, float("nan"), precision="int8")


def test_ap_tolerance():
    require_same_ap("a", 0.5, 0.6, precision="int8")
    with pytest.raises(UserError, match=r"AP 0\.4000 instead of PyTorch's 0\.5000"):
        require_same_ap("a", 0.5, 0.4, precision="int8")
    with pytest.raises(UserError, match=r"AP 0\.6000"):
        require_same_ap("a", 0.5, 0.6, precision="fp32")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.pt"], "--out a.pt: a file of onnx ends in .onnx"),
        (["--fixed", "0"], "--fixed 0: expected at least 1 image"),
        (["--tolerance", "2"], "--tolerance 2.0: expected a score difference in (0, 1]"),
        (["--format", "torch_export", "--nms"], "--nms works for onnx and openvino"),
        (["--format", "torch_export", "--precision", "int8"], "--precision int8 works for onnx"),
        (["--nms", "eval.protocol=darknet"], "has a suppression of its own"),
        (["--data", "none.yaml"], "none.yaml: no such file"),
        (["--images", "none.jpg"], "none.jpg: no such file or folder"),
        (["--size", "50"], "try 32 or 64"),
        (["--out", "/proc/a.onnx"], "/proc/a.onnx: cannot be written"),
        (["--weights", "a.onnx"], "a.onnx: is an exported file already"),
    ],
)
def test_a_users_mistake_is_one_line(tool, checkpoint, words, message):
    words = [*words, *([] if "--weights" in words else ["--weights", checkpoint])]
    status, _, err = tool("export", *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(Path().glob("*.onnx"))


def test_missing_packages_and_images(tool, checkpoint, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        status, _, err = tool("export", "--weights", checkpoint)
    assert status == 2
    assert "export to onnx needs onnx, onnxscript, onnxruntime: pip install 'detector[onnx]'" in err
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"no image")
    status, _, err = tool("export", "--weights", checkpoint, "--images", broken)
    assert status == 2
    assert "a.jpg: not a decodable image; --images takes images only" in err
    moved = ["--weights", checkpoint, "data.dataset=gone.yaml"]
    status, _, err = tool("export", *moved)
    assert status == 2
    assert "no images to compare the file with PyTorch on" in err


def test_int8_calibrates_on_training_images(checkpoint, monkeypatch):
    config = load_model(checkpoint, ["eval.batch_size=5"]).config
    batches = list(model_export._calibration_images(config, 8))
    assert [batch.shape for batch in batches] == [(5, 3, 64, 64)] * 2
    assert 0 <= batches[0].min() < batches[0].max() <= 1
