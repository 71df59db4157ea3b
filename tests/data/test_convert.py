import json

import cv2
import numpy as np
import pytest

from detector.data import ImageReader, coco_tree, load_data_yaml, read_split, write_subset
from detector.data.writers import convert

FORMATS = ("coco", "yolo", "voc")


def read(yaml, split="train"):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split)


def equal(a, b, *, crowds=True):
    """Samples of two indices are the same."""
    a, b = ImageReader(a), ImageReader(b)
    assert len(a) == len(b) > 0
    for number in range(len(a)):
        x, y = a.read(number), b.read(number)
        assert np.array_equal(x.image, y.image)
        assert x.labels.tolist() == y.labels.tolist()
        assert x.boxes_xyxy == pytest.approx(y.boxes_xyxy, abs=1e-4)
        if crowds:
            assert x.ignore_xyxy == pytest.approx(y.ignore_xyxy, abs=1e-4)
    return a.index.names == b.index.names


def converted(yaml, to, folder):
    for split in ("train", "val"):
        index = read(yaml, split)
        (convert.write_coco if to == "coco" else convert.write_yolo)(index, folder, split)
    convert.write_yaml(folder / "data.yaml", to, index, ["train", "val"], mirrors=True)
    return folder / "data.yaml"


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip_of_formats(written, tmp_path, form):
    yaml = written(form)
    coco = converted(yaml, "coco", tmp_path / "c")
    yolo = converted(coco, "yolo", tmp_path / "y")
    back = converted(yolo, "coco", tmp_path / "b")
    for split in ("train", "val"):
        assert equal(read(yaml, split), read(coco, split))
        assert equal(read(coco, split), read(yolo, split), crowds=False)
        assert equal(read(yolo, split), read(back, split))
        assert not read(back, split).findings


def test_a_json_keeps_fields_that_an_index_lacks(written, tmp_path):
    yaml = written("coco")
    path = yaml.parent / "annotations" / "instances_train2017.json"
    tree = json.loads(path.read_text())
    tree["annotations"][0] |= {"area": 123.5, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    path.write_text(json.dumps(tree))
    again = coco_tree(read(converted(yaml, "coco", tmp_path / "c")))
    assert again == tree


def test_yolo_txt_cannot_represent_crowds(written, tmp_path):
    index = read(written("coco"))
    assert convert.write_yolo(index, tmp_path / "y", "train") == index.crowd.sum() == 1


def test_images_with_the_same_name_in_two_folders(written, tmp_path):
    yaml = written("yolo")
    images = yaml.parent / "images"
    (images / "val" / "e.jpg").rename(images / "val" / "A.jpg")
    (yaml.parent / "labels" / "val" / "e.txt").rename(yaml.parent / "labels" / "val" / "A.txt")
    yaml.write_text(
        yaml.read_text().replace("train: images/train", "train: [images/train, images/val]")
    )
    for to in ("coco", "yolo"):
        other = converted(yaml, to, tmp_path / f"to-{to}")
        by_image = {
            tuple(s.image.shape): s.labels.tolist()
            for s in map(ImageReader(read(other)).read, range(5))
        }
        assert by_image[60, 100, 3] == [1, 0]
        assert by_image[70, 99, 3] == [0, 1]


def test_no_mirrors(written, tmp_path):
    index = read(written("yolo"))
    for to in ("coco", "yolo"):
        convert.write_yaml(tmp_path / "x.yaml", to, index, ["train"], mirrors=False)
        assert not load_data_yaml(str(tmp_path / "x.yaml"))[0].mirrors


@pytest.mark.parametrize("form", FORMATS)
def test_subset_of_any_format(written, tmp_path, form):
    index = read(written(form), "val")
    yaml = write_subset(index, tmp_path / "few", count=1, min_boxes=1, min_side=2, size=320)
    few = read(yaml)
    assert few.files.tolist() == ["e.jpg"]
    assert cv2.imread(str(few.folder / few.files[0])) is not None
    assert few.boxes_xyxy == pytest.approx(index.boxes_xyxy[:2], abs=0.01)
