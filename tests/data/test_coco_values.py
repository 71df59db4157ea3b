"""COCO's json as people and programs write it: what is unambiguous is read, all else is one line."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector.coco_json import load_json
from detector.data import Letterbox, ValSet, coco_tree, read_coco
from detector.data.checks import check_dataset, describe_findings, describe_label_problems
from detector.data.image_reader import ImageReader
from detector.data.store.index import choose_classes
from detector.data.writers.convert import write_coco
from detector.errors import UserError
from detector.evaluation import GroundTruth, read_results

ANCHORS = np.array([[20.0, 20.0]])


@pytest.fixture
def json_file(coco_root):
    return coco_root / "annotations" / "instances_train2017.json"


def edit(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def read(json_file, names=None):
    return read_coco(json_file.parents[1] / "train2017", json_file, names)


def content(json_file):
    """What training, evaluation and conversion get, comparable."""
    index, truth = read(json_file), GroundTruth.from_coco(json_file)
    columns = ("image_ids", "sizes", "starts", "boxes_xyxy", "labels", "crowd", "category_ids")
    return (
        index.files.tolist(),
        index.names,
        *(getattr(index, name).tolist() for name in columns),
        *(getattr(truth, name).tolist() for name in ("image", "label", "boxes_xywh", "area")),
        truth.crowd.tolist(),
    )


def quote_ids(tree):
    for entry in [*tree["images"], *tree["categories"], *tree["annotations"]]:
        for key in {"id", "image_id", "category_id"} & entry.keys():
            entry[key] = str(entry[key])


def quote_numbers(tree):
    for entry in tree["annotations"]:
        entry["bbox"] = [str(value) for value in entry["bbox"]]
        entry["area"], entry["iscrowd"] = f"{entry['area']}.0", str(entry["iscrowd"])
    for entry in tree["images"]:
        entry["width"], entry["height"] = str(entry["width"]), float(entry["height"])


def all_entries(where, **changes):
    def change(tree):
        for entry in tree[where]:
            entry.update(changes)

    return change


def without(where, *keys):
    def change(tree):
        for entry in tree[where]:
            for key in keys:
                del entry[key]

    return change


def refer_by_floats(tree):
    for entry in tree["annotations"]:
        entry["image_id"] = float(entry["image_id"])


def name_annotations(tree):
    for entry in tree["annotations"]:
        entry["id"] = f"8e8a-{entry['id']}"


def booleans(tree):
    for entry in tree["annotations"]:
        entry["iscrowd"] = entry["iscrowd"] == 1


@pytest.mark.parametrize(
    "change",
    [
        quote_ids,
        quote_numbers,
        refer_by_floats,
        name_annotations,
        booleans,
        all_entries("annotations", id=2**127),
        all_entries("annotations", id=None),
        without("annotations", "id"),
        all_entries("images", width=None, height=None),
        all_entries("images", width=0, height=0),
        without("images", "width", "height"),
        all_entries("categories", supercategory=None),
        lambda t: t["annotations"][2].update(iscrowd="true"),
        lambda t: [e.pop("iscrowd") for e in t["annotations"] if not e["iscrowd"]],
    ],
)
def test_the_unambiguous_is_read(json_file, change):
    expected = content(json_file)
    edit(json_file, change)
    assert content(json_file) == expected


def test_a_quoted_zero_is_no_crowd(json_file):
    edit(json_file, all_entries("annotations", iscrowd="0"))
    assert not read(json_file).crowd.any()
    assert not GroundTruth.from_coco(json_file).crowd.any()


def test_names_that_are_numbers_are_text(json_file):
    edit(json_file, lambda t: t["categories"][0].update(name=2146))
    assert read(json_file).names == ("three", "2146")
    assert read(json_file, ("2146", "three")).category_ids.tolist() == [7, 3]
    assert GroundTruth.from_coco(json_file).names == ("three", "2146")


HOSTILE = [
    None,
    True,
    1.5,
    1e400,
    -1e400,
    2**63,
    "seven",
    "",
    [],
    [7],
    {},
    "\ud800",
    "\0",
    [[[[]]]],
]


def combinations():
    values = {
        ("images", "id"): HOSTILE,
        ("categories", "id"): HOSTILE,
        ("annotations", "image_id"): HOSTILE,
        ("annotations", "category_id"): HOSTILE,
        ("images", "file_name"): [None, True, 1.5, 1e400, "", " ", [], {}, "\ud800", "a\0.jpg"],
        ("categories", "name"): [None, True, 1.5, 1e400, "", " ", [], {}, "\ud800", "a\0"],
        ("images", "width"): [True, 1.5, 1e400, 2**63, -5, "wide", [], {}],
        ("annotations", "bbox"): [None, True, 5, "1234", {}, [], [1, 2, 3], [[1], 2, 3, 4]],
        ("annotations", "iscrowd"): [2, 0.5, float("nan"), "maybe", [], {}],
        ("annotations", "area"): [True, "large", [], {}],
    }
    return [(where, key, value) for (where, key), many in values.items() for value in many]


@pytest.mark.parametrize(("where", "key", "value"), combinations())
def test_the_rest_is_one_line_with_file_and_entry(json_file, where, key, value):
    edit(json_file, lambda t: t[where][0].update({key: value}))
    messages = []
    for reader in (read, GroundTruth.from_coco):
        if (key, value) in (("file_name", None), ("file_name", "")) and reader is not read:
            continue  # an evaluation needs no file names
        with pytest.raises(UserError) as caught:
            reader(json_file)
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    entry = "annotation 1" if where == "annotations" else f"{where}[0]"
    assert messages[0].startswith(f"{json_file}: {entry}: ")
    assert repr(key) in messages[0]
    assert len(messages[0].splitlines()) == 1
    messages[0].encode()  # can be printed


@pytest.mark.parametrize("entry", [None, 5, "text", [], [{}]])
@pytest.mark.parametrize("where", ["images", "categories", "annotations"])
def test_entries_that_are_no_objects(json_file, where, entry):
    edit(json_file, lambda t: t[where].insert(0, entry))
    for reader in (read, GroundTruth.from_coco):
        with pytest.raises(UserError, match=rf"{where}\[0\]: expected an object with keys, not"):
            reader(json_file)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"images": ' + "[" * 100_000, "1" * 5000, '{"images": [', "\xff\xfe", "null"],
    ids=["nested", "nested list", "long number", "cut", "not UTF-8", "null"],
)
def test_files_that_are_no_annotations(json_file, text):
    json_file.write_bytes(text.encode("latin-1"))
    for reader in (read, GroundTruth.from_coco):
        with pytest.raises(UserError, match=r"instances_train2017\.json: not a") as caught:
            reader(json_file)
        assert len(str(caught.value).splitlines()) == 1


def test_pipes_and_devices_are_not_read(json_file):
    json_file.unlink()
    os.mkfifo(json_file)
    with pytest.raises(UserError, match="a device or a pipe, not a file"):
        read(json_file)
    with pytest.raises(UserError, match="a folder, not a file"):
        load_json(json_file.parent)
    with pytest.raises(UserError, match="cannot contain a NUL"):
        load_json(json_file.parent / "a\0b")


def test_file_names_that_no_file_can_have_are_missing_images(json_file):
    edit(json_file, lambda t: t["images"][0].update(file_name=f"a/{'x' * 5000}.jpg"))
    assert [f.kind for f in read(json_file).findings].count("missing image") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e400, 10**400])
def test_a_box_that_is_not_finite_is_skipped_everywhere(json_file, value):
    before = content(json_file)
    edit(json_file, lambda t: t["annotations"].append({**t["annotations"][0], "id": 9}))
    edit(json_file, lambda t: t["annotations"][-1].update(bbox=[1, 2, value, 4]))
    assert content(json_file) == before
    (finding,) = [f for f in read(json_file).findings if f.kind == "not finite"]
    shown = "nan" if value != value else "inf"
    assert str(finding) == f"{json_file.name}: annotation 9: box (1, 2, {shown}, 4) is not finite"


def test_an_area_that_is_not_finite_is_the_boxs(json_file):
    before = content(json_file)
    edit(json_file, all_entries("annotations", area=float("nan")))
    assert content(json_file) == before


def add_root(name):
    """A root category as exporters write it: id 0, which the others name as their supercategory."""

    def change(tree):
        tree["categories"] = [
            {"id": 0, "name": name, "supercategory": "none"},
            *({**entry, "supercategory": name} for entry in tree["categories"]),
        ]

    return change


def test_categories_of_one_name_are_one_class(json_file, tmp_path):
    before = content(json_file)
    edit(json_file, add_root("seven"))
    assert content(json_file) == before
    index = read(json_file)
    (line,) = describe_findings({"train": index})
    assert "category 'seven': ids 0, 7 have this name and are read as one class" in line
    report = check_dataset("x", {"train": index, "val": index}, size=64, anchors=ANCHORS)
    assert "duplicate category" in {problem.kind for problem in report.problems}
    assert report.splits[0].boxes_by_class == {"three": 2, "seven": 1}
    write_coco(index, tmp_path / "new", "train")
    again = tmp_path / "new" / "annotations" / "instances_train2017.json"
    assert content(again) == before


def test_boxes_of_both_categories_of_one_name_count(json_file):
    edit(json_file, lambda t: t["categories"][0].update(name="three"))
    index, truth = read(json_file), GroundTruth.from_coco(json_file)
    assert (index.names, index.category_ids.tolist()) == (("three",), [7])
    assert index.labels.tolist() == [0, 0, 0, 0]
    assert (truth.names, len(truth.label)) == (("three",), 6)
    assert {entry["category_id"] for entry in coco_tree(index)["annotations"]} == {7}


def test_a_root_category_without_boxes_is_named_with_the_remedy(json_file):
    edit(json_file, add_root("numbers"))
    index = read(json_file)
    (line,) = describe_findings({"train": index})
    assert "category 'numbers': it groups other categories and has no boxes of its own" in line
    assert "`names: [seven, three]`" in line
    splits = {"train": index, "val": index}
    at_start = describe_label_problems("x", splits, size=64, anchors=ANCHORS, ratio=4.0)
    assert any("category 'numbers'" in each for each in at_start)
    for without_root in (read(json_file, ("seven", "three")), choose_classes(index, ("seven",))):
        assert not describe_findings({"train": without_root})


def turn_by_exif(path):
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)


def test_sizes_without_the_exif_turn(json_file, coco_root):
    """The boxes are those of the upright image, 60 x 100; the json has the stored 100 x 60."""
    turn_by_exif(coco_root / "train2017" / "a.jpg")
    edit(json_file, lambda t: t["annotations"][1].update(bbox=[5, 65, 30, 30]))
    index = read(json_file)
    assert index.sizes[0].tolist() == [100, 60]
    assert index.boxes_xyxy[0].tolist() == [5, 65, 35, 95]  # not clipped, scaled or skipped
    sample = ImageReader(index).read(0)
    assert sample.image.shape == (100, 60, 3)
    assert sample.boxes_xyxy[0].tolist() == [5, 65, 35, 95]
    expected = "train2017/a.jpg: the image is 60 x 100, annotated as 100 x 60 (rotated?)"
    (line,) = describe_findings({"train": index})  # what train, val and convert_data print
    report = check_dataset("x", {"train": index, "val": index}, size=64, anchors=ANCHORS)
    (problem,) = [each for each in report.problems if each.kind == "size mismatch"]
    assert expected in line
    assert problem.examples[0] == expected


def test_resized_files_are_reported_and_boxes_are_pixels_of_the_file(json_file, coco_root):
    pixels = np.zeros((40, 36, 3), np.uint8)
    cv2.imwrite(str(coco_root / "train2017" / "b.jpg"), pixels)
    index = read(json_file)
    assert "b.jpg: the image is 36 x 40, annotated as 40 x 80" in describe_findings({"t": index})[0]
    loaded = ValSet(ImageReader(index), Letterbox(64), batch_size=2)[1]
    assert loaded.sample is not None
    assert loaded.placement is not None
    placed = torch.from_numpy(loaded.sample.boxes_xyxy)
    assert loaded.placement.to_original(placed).tolist() == [[4, 5, 24, 35]]  # as the ground truth


def test_unreadable_images_without_sizes_are_named(json_file, coco_root):
    (coco_root / "train2017" / "a.jpg").write_bytes(b"no image")
    edit(json_file, all_entries("images", width=None, height=None))
    index = read(json_file)
    assert [f.kind for f in index.findings].count("unreadable image") == 1
    assert index.sizes[1:].tolist() == [[80, 40], [64, 64]]


@pytest.mark.parametrize(
    "entry",
    [5, None, {"image_id": [10]}, {"image_id": True}, {"bbox": "1234"}, {"score": True}],
)
def test_results_of_the_wrong_kind(json_file, tmp_path, entry):
    truth = GroundTruth.from_coco(json_file)
    good = {"image_id": "10", "category_id": 7.0, "bbox": [1, 2, 3, 4], "score": "0.5"}
    path = tmp_path / "r.json"
    path.write_text(json.dumps([good]))
    assert read_results(path, truth).score.tolist() == [0.5]
    path.write_text(json.dumps([good, good | entry if isinstance(entry, dict) else entry]))
    with pytest.raises(UserError, match=r"r\.json: a result whose"):
        read_results(path, truth)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"r\.json: not a readable json file"):
        read_results(path, truth)
