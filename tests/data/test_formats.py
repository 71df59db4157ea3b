"""What holds for every format, and how formats are detected."""

import json
import shutil

import numpy as np
import pytest
import torch

from detector.build import build_data, build_val
from detector.config import description_folder, load_config, load_yaml_as
from detector.data import (
    DatasetConfig,
    ImageReader,
    coco_tree,
    list_splits,
    load_data_yaml,
    read_split,
)
from detector.errors import UserError
from detector.evaluation import CocoAP
from detector.structures import Detections, ImageDetections

FORMATS = ("coco", "yolo", "voc")


def read(yaml, split="train", **options):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split, **options)


def test_the_same_data_in_three_formats_gives_equal_samples(written):
    yamls = {form: written(form) for form in FORMATS}
    for split, count in (("train", 3), ("val", 2)):
        readers = [ImageReader(read(yamls[form], split)) for form in FORMATS]
        assert [len(reader) for reader in readers] == [count] * 3
        for number in range(count):
            coco, yolo, voc = (reader.read(number) for reader in readers)
            for other in (yolo, voc):
                assert np.array_equal(other.image, coco.image)
                assert other.labels.tolist() == coco.labels.tolist()
                assert other.boxes_xyxy == pytest.approx(coco.boxes_xyxy, abs=0.01)
                assert other.boxes_xyxy.dtype == coco.boxes_xyxy.dtype == np.float32
                assert other.image_id == coco.image_id
            # YOLO's txt knows no crowds
            assert voc.ignore_xyxy.tolist() == coco.ignore_xyxy.tolist()
        assert sum(len(reader.index.boxes_xyxy) for reader in readers) > 0
        assert len({reader.index.names for reader in readers}) == 1
        assert len({tuple(map(tuple, reader.index.sizes)) for reader in readers}) == 1
        assert not any(reader.index.findings for reader in readers)


@pytest.mark.parametrize(
    ("form", "note"),
    [
        ("coco", "detected format COCO json (annotations/*.json); `format: coco`"),
        ("yolo", "detected format YOLO txt (images in train/); `format: yolo`"),
        ("voc", "detected format Pascal VOC (Annotations/); `format: voc`"),
    ],
)
def test_the_detected_format_is_reported_once(written, form, note):
    yaml = written(form)
    notes = read(yaml).notes
    assert note in notes[0]
    assert len(notes) == (2 if form == "yolo" else 1)
    text = yaml.read_text()
    yaml.write_text(f"format: {form}\n{text}")
    assert not [line for line in read(yaml).notes if "detected format" in line]


def test_more_workers_than_any_machine_can_use(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    config = load_config("yolov4-pacsp-n-mish.yaml", ["data.workers=500"])
    for build in (build_data, build_val):
        with pytest.raises(
            UserError, match=r"data\.workers: 500 processes on 2 CPU cores; .*at most 64"
        ):
            build(config)


def detections_of(index, noise=0.0, seed=0):
    """Ground truth as detections, moved by `noise` pixels."""
    rng = np.random.default_rng(seed)
    detections = []
    for number, image_id in enumerate(index.image_ids.tolist()):
        rows = slice(index.starts[number], index.starts[number + 1])
        real = ~index.crowd[rows]
        boxes = index.boxes_xyxy[rows][real]
        boxes = boxes + rng.normal(0, noise, boxes.shape)
        scores = torch.from_numpy(rng.random(len(boxes)))
        labels = torch.from_numpy(index.labels[rows][real])
        detections.append(
            ImageDetections(image_id, Detections(torch.from_numpy(boxes), scores, labels))
        )
    return detections


def evaluate_ap(index, detections):
    return CocoAP(coco_tree(index), index.category_ids.tolist())(detections)


def test_cocos_ap_is_the_same_in_every_format(written):
    metrics = {}
    for form in FORMATS:
        index = read(written(form), "val")
        assert evaluate_ap(index, detections_of(index))["AP"] == pytest.approx(1.0)
        metrics[form] = evaluate_ap(index, detections_of(index, noise=3.0))
    assert 0 < metrics["coco"]["AP"] < 1
    assert metrics["voc"] == pytest.approx(metrics["coco"])
    assert metrics["yolo"]["AP75"] == pytest.approx(metrics["coco"]["AP75"])


def test_annotations_are_numbered_from_one(written):
    for form in ("yolo", "voc"):
        tree = coco_tree(read(written(form)))
        assert [each["id"] for each in tree["annotations"]][:2] == [1, 2]
        assert [each["id"] for each in tree["categories"]] == [1, 2, 3]
        json.dumps(tree)
    assert [each["iscrowd"] for each in tree["annotations"]] == [0, 0, 1, 0]


@pytest.mark.parametrize("form", FORMATS)
def test_some_of_the_classes(written, form):
    yaml = written(form)
    whole, some = read(yaml), read(yaml, classes=("fire truck", "person"))
    assert some.names == ("fire truck", "person")
    assert len(some) == len(whole)
    kept = np.isin(whole.labels, [0, 2])
    assert some.boxes_xyxy.tolist() == whole.boxes_xyxy[kept].tolist()
    assert [some.names[n] for n in some.labels] == [whole.names[n] for n in whole.labels[kept]]
    assert some.starts[-1] == kept.sum()
    assert some.category_ids.tolist() == whole.category_ids[[2, 0]].tolist()
    assert evaluate_ap(some, detections_of(some))["AP"] == pytest.approx(
        1.0
    )  # others are not missed
    with pytest.raises(UserError, match=r"has no class 'fire trucks'; did you mean fire truck\?"):
        read(yaml, classes=("person", "fire trucks"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_test_split_without_annotations(written, form):
    yaml = written(form)
    root, images = yaml.parent, yaml.parent / "test2017"
    if form == "coco":
        shutil.copytree(root / "val2017", images)
        path = root / "annotations" / "instances_val2017.json"
        tree = json.loads(path.read_text())
        del tree["annotations"]
        (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(tree))
        path.write_text(json.dumps(tree))
        with pytest.raises(UserError, match="list 'annotations' is missing"):
            read(yaml, "val")
    elif form == "yolo":
        shutil.copytree(root / "images" / "val", images)
        yaml.write_text(yaml.read_text() + "test: test2017\n")
    else:
        names = "".join(f"{path.stem}\n" for path in (root / "JPEGImages").iterdir())
        (root / "ImageSets" / "Main" / "test.txt").write_text(names)
        shutil.rmtree(root / "Annotations")
        (root / "Annotations").mkdir()
    config, _ = load_data_yaml(str(yaml))
    assert list_splits(config, root) == ["train", "val", "test"]
    index = read(yaml, "test")
    assert len(index) == (5 if form == "voc" else 2)
    assert len(index.boxes_xyxy) == 0
    assert not index.findings
    assert index.names == ("person", "cat", "fire truck")


@pytest.mark.parametrize("form", FORMATS)
def test_no_such_split(written, form):
    yaml = written(form)
    with pytest.raises(UserError, match="no split `test`"):
        read(yaml, "test")
    config, root = load_data_yaml(str(yaml))
    assert list_splits(config, root)[:2] == ["train", "val"]


def test_coco_in_any_layout(written):
    yaml = written("coco")
    root = yaml.parent
    (root / "val2017").rename(root / "pictures")
    (root / "annotations" / "instances_val2017.json").rename(root / "my.json")
    yaml.write_text(
        "train: {images: train2017, annotations: annotations/instances_train2017.json}\n"
    )
    with yaml.open("a") as file:
        file.write("val:\n  images: pictures\n  annotations: my.json\n")
    index = read(yaml, "val")
    assert index.folder == root / "pictures"
    assert index.annotations == root / "my.json"
    assert "split of images and annotations" in index.notes[0]


def test_paths_are_relative_to_the_yaml(written, monkeypatch, tmp_path):
    yaml = written("yolo")
    (tmp_path / "yamls").mkdir()
    other = tmp_path / "yamls" / "mine.yaml"
    other.write_text("path: ../yolo\n" + yaml.read_text())
    monkeypatch.chdir(tmp_path)
    assert len(read("yamls/mine.yaml")) == 3
    assert read("yamls/mine.yaml").folder == tmp_path / "yolo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root: .\npath: .\n", "`root` and `path` both mean"),
        ("path: .\ntrian: x\nval: y\n", r"2: unknown key trian; did you mean train\?"),
        ("path: .\ntrain: []\n", "train: "),
        ("path: .\ntrain: {images: x}\n", "annotations: this key is missing"),
        (
            "path: .\nnames: {0: a, 2: b}\n",
            "class 1 is missing; 2 classes are numbered from 0 to 1",
        ),
        ("path: .\nnames: [a, b, a]\n", "names: duplicate class name 'a'"),
        ("path: .\nformat: yoloo\n", "format: "),
        ("path: .\ntrain: x.json\n", "a COCO json needs its folder of images"),
        ("path: .\nformat: coco\ntrain: x\n", "has to be {images: FOLDER, annotations: JSON}"),
        (
            "format: yolo\ntrain: {images: x, annotations: y}\n",
            "`train:` of a YOLO txt data set has to be a path",
        ),
        ("path: .\nnames: [a]\n", "unknown data format; expected COCO"),
    ],
)
def test_mistakes_in_a_yaml(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_keys_of_other_toolkits_are_reported_and_ignored(written):
    yaml = written("yolo")
    yaml.write_text(
        yaml.read_text() + "download: |\n  import os\nroboflow:\n  license: MIT\ncolors: [1, 2]\n"
    )
    assert read(yaml).notes[-1] == "data YAML: ignored keys colors, download, nc, roboflow"


def test_numbers_as_names(written):
    yaml = written("yolo")
    yaml.write_text("train: images/train\nval: images/val\nnames: [0, no, 2]\n")
    assert read(yaml).names == ("0", "no", "2")


@pytest.mark.parametrize(
    "path", sorted(description_folder("data").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_packaged_yamls(path):
    config = load_yaml_as(DatasetConfig, path)
    assert config.format is not None
    assert config.names is None or len(config.names) == 20
