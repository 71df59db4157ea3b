import json

import numpy as np
import pytest

from detector.data import ImageReader, load_data_yaml, read_coco, read_split
from detector.errors import UserError


def read(root, split="train", names=None):
    return read_coco(
        root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", names
    )


def edit(root, change):
    path = root / "annotations" / "instances_train2017.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_index(coco_root):
    index = read(coco_root)
    assert index.names == ("three", "seven")  # by category id
    assert index.category_ids.tolist() == [3, 7]
    assert index.files.tolist() == ["a.jpg", "b.jpg", "empty.jpg"]
    assert index.starts.tolist() == [0, 3, 4, 4]
    assert index.labels.tolist() == [1, 0, 0, 0]
    assert index.crowd.tolist() == [False, True, False, False]
    assert index.boxes_xyxy[2].tolist() == [90, 50, 100, 60]  # clipped at the border
    assert len(index.findings) == 2
    assert "annotation 5" in str(index.findings[0])
    assert "annotation 6" in str(index.findings[1])


def test_samples(coco_root):
    reader = ImageReader(read(coco_root))
    first = reader.read(0)
    assert first.image.shape == (60, 100, 3)
    assert first.labels.tolist() == [1, 0]
    assert first.ignore_xyxy.tolist() == [[10, 10, 70, 50]]
    assert len(reader.read(2).labels) == 0


def test_labels_have_the_order_of_names_in_the_yaml(coco_root):
    index = read(coco_root, names=("seven", "three"))
    assert index.category_ids.tolist() == [7, 3]
    assert index.labels.tolist() == [0, 1, 1, 1]
    with pytest.raises(UserError, match="no category 'eight'"):
        read(coco_root, names=("seven", "eight"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["annotations"][0].update(category_id=99),
            "annotation 1: unknown category id 99",
        ),
        (lambda t: t["annotations"][0].update(image_id=99), "annotation 1: unknown image id 99"),
        (lambda t: t["annotations"][0].pop("bbox"), "an annotation without"),
        (
            lambda t: t["annotations"][0].update(bbox=[1, 2, 3]),
            r"annotation 1: 'bbox' is \[1, 2, 3\]; expected 4 numbers",
        ),
        (
            lambda t: t["annotations"][0].update(bbox=["a", 2, 3, 4]),
            "annotation 1: 'bbox' is .*expected 4",
        ),
        (lambda t: t["images"].append(t["images"][0]), "duplicate image id 10: it occurs 2 times"),
        (
            lambda t: t["categories"].append(t["categories"][0]),
            "duplicate category id 7: it occurs 2 times",
        ),
        (lambda t: t["images"][0].pop("file_name"), r"images\[0\]: an entry without 'file_name'"),
        (
            lambda t: t.pop("annotations"),
            "not a COCO annotation file: list 'annotations' is missing",
        ),
        (lambda t: t.update(categories=[]), "its list of categories is empty"),
    ],
)
def test_unusable_data_sets(coco_root, change, message):
    edit(coco_root, change)
    with pytest.raises(UserError, match=message) as caught:
        read(coco_root)
    assert "instances_train2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "\x00\x01"])
def test_not_a_json(coco_root, text):
    (coco_root / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(UserError, match=r"instances_train2017\.json: not a"):
        read(coco_root)


def test_infinite_boxes_are_skipped(coco_root):
    edit(coco_root, lambda t: t["annotations"][0].update(bbox=[0, 0, float("nan"), 5]))
    index = read(coco_root)
    assert len(index.findings) == 3
    assert np.isfinite(index.boxes_xyxy).all()


def test_missing_images_are_named_and_the_others_keep_their_boxes(coco_root):
    (coco_root / "train2017" / "a.jpg").unlink()
    index = read(coco_root)
    assert index.files.tolist() == ["b.jpg", "empty.jpg"]
    assert index.boxes_xyxy.tolist() == [[4, 5, 24, 35]]
    assert any("a.jpg: no such file" in str(line) for line in index.findings)


def test_no_image_at_all(coco_root):
    for path in (coco_root / "train2017").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the 3 images"):
        read(coco_root)


def test_missing_files_name_the_expected_layout(coco_root, tmp_path):
    (coco_root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"no such file; expected ROOT/annotations/instances_train"):
        read(coco_root, "val")
    yaml = tmp_path / "x.yaml"
    yaml.write_text("format: coco\nroot: nowhere\n")
    with pytest.raises(UserError, match=r"nowhere does not exist; expected ROOT/.*digits\.yaml"):
        load_data_yaml(str(yaml))


def test_describe_digits(digits_yaml, digits_root):
    config, root = load_data_yaml(str(digits_yaml))
    assert (root, config.mirrors) == (digits_root, False)
    assert len(read_split(config, root, "val")) == 5


def test_a_mistake_in_a_data_yaml_is_named(tmp_path):
    yaml = tmp_path / "x.yaml"
    yaml.write_text("root: .\nnmaes: [a]\n")
    with pytest.raises(UserError, match=r"x\.yaml:2: unknown key nmaes; did you mean names\?"):
        load_data_yaml(str(yaml))


def test_an_empty_annotation_list(coco_root):
    edit(coco_root, lambda t: t.update(annotations=[]))
    index = read(coco_root)
    assert index.starts.tolist() == [0, 0, 0, 0]
    assert len(ImageReader(index).read(0).labels) == 0
