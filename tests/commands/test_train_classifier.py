"""A classifier from the command line: run folder, exact resume, its backbone in a detector, mistakes."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.data.digits.folders import make_digit_folders
from detector.engine import load_checkpoint
from detector.evaluation import load_evaluation
from detector.models import VARIANTS, CSPDarknet, Variant
from detector.models.capsnet import CapsNet
from detector.weights.load import read_weights
from tests.models.networks import shrink

SMALL = ("data.workers=0", "train.threads=1", "train.device=cpu", "train.epochs=2")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """70 images, a fifth of them for validation."""
    root = tmp_path_factory.mktemp("cls") / "digits"
    make_digit_folders(root, 7)
    path = root.with_suffix(".yaml")
    path.write_text("format: folders\nroot: digits\nmirrors: false\n")
    return path


def train(tool, digits, *words):
    start = ("--cfg", "cnn6-mish-cls", "--data", digits, *SMALL, "train.batch_size=16")
    return tool("train_classifier", *start, "train.nominal_batch=16", *words)


def test_a_run_and_its_resumption(tool, digits, tmp_path):
    status, out, _ = train(tool, digits, "--out", "runs/whole")
    assert status == 0
    assert "top-1 " in out
    whole = tmp_path / "runs" / "whole"
    header = (whole / "results.csv").read_text().splitlines()[0]
    assert {"top1", "top5", "loss"} <= set(header.split(","))
    rows = list(csv.reader((whole / "confusion.csv").read_text().splitlines()))
    assert sum(int(value) for row in rows[1:] for value in row[1:]) == 20
    saved = load_evaluation(whole / "evaluation.npz")
    last = list(csv.DictReader((whole / "results.csv").read_text().splitlines()))[-1]
    assert saved.resampler(np.ones(20)) == pytest.approx(
        [float(last[name]) for name in saved.metrics], abs=1e-6
    )
    assert train(tool, digits, "--out", "runs/parts", "--batch-limit", 5)[0] == 0
    status, out, _ = tool("train_classifier", "--resume", "runs/parts")
    assert status == 0
    assert "resuming in epoch 2 after batch 1" in out
    whole, parts = (
        load_checkpoint(tmp_path / "runs" / name / "last.pt") for name in ("whole", "parts")
    )
    for name, tensor in whole["weights"].items():
        assert torch.equal(tensor, parts["weights"][name]), name
    status, out, _ = tool("val", "--weights", "runs/whole", "--report", "page", "--json", "m.json")
    assert status == 0
    assert "95 % interval" in out
    assert "Accuracy by epoch" in (tmp_path / "page" / "report.html").read_text()
    numbers = json.loads((tmp_path / "m.json").read_text())["models"][0]
    assert numbers["images"] == 20
    rows = csv.DictReader((tmp_path / "runs/whole/results.csv").read_text().splitlines())
    best = max(float(row["top1"]) for row in rows)
    assert numbers["top1"]["value"] == pytest.approx(best, abs=1e-6)
    status, _, err = tool("val", "--weights", "runs/whole", "--tta")
    assert status == 2
    assert "--tta is for detectors" in err


@pytest.mark.parametrize("arch", ["capsnet", pytest.param("spinenet49", marks=pytest.mark.slow)])
def test_networks_of_another_form_resume_exactly(arch, tool, digits, tmp_path, monkeypatch):
    """Routing and the margin loss, with shares of classes; maps of five scales."""
    monkeypatch.setitem(VARIANTS, "capsnet", Variant(network=partial(CapsNet, channels=8, kinds=1)))
    monkeypatch.setitem(VARIANTS, "spinenet49", shrink(VARIANTS["spinenet49"]))
    words = [f"model.arch={arch}", "loss.label_smoothing=0.1", "bag.mixup=0.5", "data.size=64"]
    assert train(tool, digits, "--out", "runs/whole", *words)[0] == 0
    assert train(tool, digits, "--out", "runs/parts", *words, "--batch-limit", 5)[0] == 0
    assert tool("train_classifier", "--resume", "runs/parts")[0] == 0
    whole, parts = (
        load_checkpoint(tmp_path / "runs" / name / "last.pt")["training"]
        for name in ("whole", "parts")
    )
    for content in ("model", "average"):
        for name, tensor in whole[content].items():
            assert torch.equal(tensor, parts[content][name]), name


def test_the_summary_of_seeds_names_the_metric(digits, tool):
    words = ("--cfg", "cnn6-mish-cls", "--data", digits, *SMALL, "train.epochs=1", "--seeds", 0, 1)
    status, out, _ = tool("train", *words)
    assert status == 0
    assert out.splitlines()[-1].startswith("top-1 by seed  0: ")


def test_a_detector_starts_from_a_classifiers_backbone(tool, digits, digits_yaml, monkeypatch):
    """The narrow backbone of yolov4-pacsp-n as a classifier."""
    bound = VARIANTS["yolov4-pacsp-n"].backbone
    assert isinstance(bound, partial)
    assert bound.func is CSPDarknet
    monkeypatch.setitem(VARIANTS, "csp-n", Variant(bound))
    words = ("model.arch=csp-n", "data.size=64", "train.epochs=1", "model.bn_momentum=0.03")
    assert train(tool, digits, "--out", "runs/cls", "--batch-limit", 2, *words)[0] == 0
    weights = tool(
        *("train", "--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, "--batch-limit", 1),
        *("--weights", "runs/cls/last.pt", "--out", "runs/det", "data.size=64", *SMALL),
    )
    assert weights[0] == 0
    tensors = [
        name
        for name in read_weights(Path("runs/cls/last.pt")).tensors
        if name.startswith("backbone")
    ]
    assert f"backbone   {len(tensors)} of {len(tensors)}" in weights[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bag=yolov4",), "bag: yolov4 is made for detectors; a classifier has none, cifar"),
        (("bag.cutmix=0.5", "bag.mixup=0.6"), "mosaic, cutmix and mixup add up to 1.1"),
        (("bag.crop_area=[0.5, 0.2]",), "crop_area: [0.5, 0.2] is no range"),
        (("bag.sat=0.5",), "bag.sat: self-adversarial training is for detectors"),
        (("bag.dropblock=0.1",), "bag.dropblock: a classifier has no neck"),
        (("loss.class_weights=balanced",), "loss.class_weights: a classifier's loss has none"),
        (("train.optimizer=rmsprop", "bag.paste=0.1"), "bag.paste: for detectors"),
    ],
)
def test_what_a_classifier_does_not_have(tool, digits, words, message):
    status, _, err = train(tool, digits, *words)
    assert status == 2
    assert message in err


def test_boxes_are_no_classes(tool, digits_yaml):
    status, _, err = train(tool, digits_yaml)
    assert status == 2
    assert "a classifier needs images of one class each" in err
