"""Real COCO images, where the variable DETECTOR_COCO names a folder in COCO's layout."""

import os
from pathlib import Path

import pytest
import torch

from detector import build
from detector.config import load_config
from detector.data import load_data_yaml, read_split
from detector.data.checks import check_dataset
from detector.evaluation import CocoAP
from detector.structures import Detections, ImageDetections

COCO = os.environ.get("DETECTOR_COCO")
pytestmark = pytest.mark.skipif(not COCO, reason="DETECTOR_COCO names no COCO folder")


@pytest.fixture
def coco_yaml(tmp_path):
    path = tmp_path / "real.yaml"
    path.write_text(f"format: coco\nroot: {Path(COCO or '').resolve()}\n")
    return str(path)


def test_both_splits_have_cocos_80_classes(coco_yaml):
    config, root = load_data_yaml(coco_yaml)
    for split in ("train", "val"):
        index = read_split(config, root, split)
        assert len(index.names) == 80
        assert (index.names[0], index.names[-1]) == ("person", "toothbrush")
        assert (index.category_ids[0], index.category_ids[-1]) == (1, 90)
        assert not index.findings


def test_real_coco_has_no_problems(coco_yaml):
    config, root = load_data_yaml(coco_yaml)
    splits = {split: read_split(config, root, split) for split in ("train", "val")}
    report = check_dataset("coco", splits, size=640)
    assert report.count("error") == 0
    assert not {p.kind for p in report.problems} & {"same image in two splits", "duplicate box"}


def test_every_sample_can_be_read_and_augmented(coco_yaml):
    config = load_config("yolov4-pacsp-s-mish", ["data.size=160", "bag.degrees=5"], data=coco_yaml)
    data = build.build_data(config)
    for number in range(min(len(data.train), 200)):
        item = data.train[0, number]
        assert not item.unreadable
        assert item.sample.image.shape == (160, 160, 3)
        assert (item.sample.boxes_xyxy >= 0).all()
        assert (item.sample.boxes_xyxy <= 160).all()


def test_every_augmentation_on_real_images(coco_yaml):
    everything = (
        "{preset: yolov4, mosaic9: 0.5, mixup: 0.3, paste: 0.5, erase: 0.3, perspective: 0.1, "
        "albumentations: [{name: GaussNoise, p: 0.3}, {name: Rotate, p: 0.3}]}"
    )
    words = [f"bag={everything}", "data.size=160", "data.sampling=class_balanced", "data.workers=0"]
    config = load_config("yolov4-pacsp-s-mish", words, data=coco_yaml)
    loader = build.build_train_loader(config, build.build_data(config).train, pin_memory=False)
    for number, batch in enumerate(loader.epoch(0)):
        height, width = batch.images.shape[2:]
        assert not batch.unreadable
        assert {height, width} <= set(build.build_train_sizes(config))
        assert (batch.boxes_xyxy >= 0).all()
        assert (batch.boxes_xyxy <= torch.tensor([width, height] * 2)).all()
        assert (batch.boxes_xyxy[:, 2:] > batch.boxes_xyxy[:, :2]).all()
        if number == 20:
            break


def test_ground_truth_as_detections_has_an_ap_of_one(coco_yaml):
    """Ground truth as detections: AP 1 by construction, through category ids and back."""
    config, root = load_data_yaml(coco_yaml)
    index = read_split(config, root, "val")
    detections = []
    for number, image_id in enumerate(index.image_ids):
        rows = slice(index.starts[number], index.starts[number + 1])
        real = ~torch.from_numpy(index.crowd[rows])
        boxes = torch.from_numpy(index.boxes_xyxy[rows])[real]
        labels = torch.from_numpy(index.labels[rows])[real]
        detections.append(
            ImageDetections(int(image_id), Detections(boxes, torch.ones(len(boxes)), labels))
        )
    metrics = CocoAP(index.annotations, index.category_ids.tolist())(detections)
    assert metrics["AP"] > 0.99
