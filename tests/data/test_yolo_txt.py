import shutil

import numpy as np
import pytest
from PIL import Image

from detector.data import ImageReader, Letterbox, ValSet, load_data_yaml, read_split, val_loader
from detector.data.checks import check_dataset
from detector.data.readers.yolo_lines import LineFormat, parse_yolo
from detector.errors import UserError


def read(yaml, split="train"):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split)


def kinds(index):
    return [finding.kind for finding in index.findings]


def test_a_line_is_a_box():
    (box,) = parse_yolo(b"2 0.5 0.25 0.2 0.5\n", (60, 100), 3).boxes
    assert box[:4] == pytest.approx((40, 0, 60, 30))
    assert box[4:] == (2, False, 1)


def test_a_polygon_becomes_its_box():
    (box,) = parse_yolo(b"\n0 0.1 0.9 0.5 0.2 0.3 0.4 0.2 0.2", (100, 200), 1).boxes
    assert box[:4] == pytest.approx((20, 20, 100, 90))
    assert box[6] == 2  # the line
    form = LineFormat(kpt_shape=(2, 3))
    (box,) = parse_yolo(b"0 .5 .5 .2 .2 .1 .1 2 .9 .9 2", (10, 10), 1, form).boxes
    assert box[:4] == pytest.approx((4, 4, 6, 6))


@pytest.mark.parametrize("text", ["", "\n \r\n", "\ufeff0 .5 .5 1 1\r\n", "0.0\t.5 .5 1 1"])
def test_lines_as_other_programs_write_them(text):
    parsed = parse_yolo(text.encode(), (10, 10), 1)
    assert not parsed.faults
    assert len(parsed.boxes) == ("5" in text)


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 .5 .5 1", "label not parsed", "4 numbers; expected 5 (box), or 7, 9, ... (polygon)"),
        ("0 .5 .5 1 1 .9", "label not parsed", "6 numbers"),
        ("0 .5 .5 1 .1 .1 .1 .1", "label not parsed", "8 numbers"),
        ("0", "label not parsed", "1 numbers"),
        ("cat .5 .5 1 1", "label not parsed", "expected numbers: 'cat"),
        ("0 .5,.5 1 1", "label not parsed", "expected numbers"),
        ("0.5 .5 .5 1 1", "label not parsed", "class 0.5 is not a whole number"),
        ("nan .5 .5 1 1", "label not parsed", "class nan is not a whole number"),
        ("3 .5 .5 1 1", "unknown class", "class 3; `names` has 3 classes, numbered from 0"),
        ("-1 .5 .5 1 1", "unknown class", "class -1"),
        (
            "0 .5 .5 .2 .2 .9 7",
            "label not parsed",
            "a box, confidence and track id, or a triangle?",
        ),
        (
            "0 .5 .5 .2 .2 .9 1",
            "label not parsed",
            "a box, confidence and track id, or a triangle?",
        ),
        ("0 .5 .5 .2 .2 .4 .4 2 .6 .6 1", "label not parsed", "`kpt_shape: [2, 3]`"),
        ("0 .5 .5 .2 .2 .4 .4 1 .6 .6 1", "label not parsed", "a box and 2 keypoints"),
        ("0 .5 .5 .2 .2 .4 .4 .3 .6 .6 1.5", "label not parsed", "not a polygon"),
        ("1 1 1 2 2", "label not parsed", "expected fractions of the image"),
        ("1 50 40 20 20", "label not parsed", "expected fractions of the image"),
    ],
)
def test_a_faulty_line_is_reported_and_the_others_are_used(written, line, kind, message):
    yaml = written("yolo")
    path = yaml.parent / "labels" / "train" / "a.txt"
    path.write_text(f"{line}\n{path.read_text()}")
    index = read(yaml)
    (finding,) = index.findings
    assert finding.kind == kind
    assert finding.where == "labels/train/a.txt: line 1"
    assert message in finding.what
    assert finding.skipped
    assert len(index.boxes_xyxy) == 3


@pytest.mark.parametrize(
    ("line", "kind", "skipped"),
    [
        ("0 .5 .5 0 .5", "flat box", True),
        ("0 1.6 .5 .2 .5", "box outside", True),
        ("0 nan .5 .2 .5", "not finite", True),
        ("0 1.0 .5 .2 .5", None, False),  # clipped at the border
        ("SAME", "duplicate box", False),
    ],
)
def test_faulty_boxes(written, line, kind, skipped):
    yaml = written("yolo")
    path = yaml.parent / "labels" / "train" / "b.b.txt"
    path.write_text(path.read_text() + line.replace("SAME", path.read_text()))
    index = read(yaml)
    assert kinds(index) == ([] if kind is None else [kind])
    assert len(index.boxes_xyxy) == (3 if skipped else 4)
    if kind:
        assert index.findings[0].where == "labels/train/b.b.txt: line 2"
        assert index.findings[0].skipped == skipped


def test_images_and_labels_without_counterpart(written):
    yaml = written("yolo")
    root = yaml.parent
    (root / "labels" / "train" / "a.txt").rename(root / "labels" / "train" / "z.txt")
    index = read(yaml)
    assert [(f.kind, f.where, f.skipped) for f in index.findings] == [
        ("label without image", "labels/train/z.txt", True),
        ("image without label", "images/train/a.jpg", False),
    ]
    assert len(index) == 3
    assert index.starts.tolist() == [0, 0, 1, 1]


def test_an_image_with_a_binary_label_file_is_skipped(written):
    yaml = written("yolo")
    (yaml.parent / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00\x81")
    index = read(yaml)
    assert kinds(index) == ["label not parsed"]
    assert index.files.tolist() == ["images/train/b.b.png", "images/train/c d.jpg"]


def test_an_unreadable_image_is_named_and_its_ground_truth_is_kept(written):
    yaml = written("yolo")
    (yaml.parent / "images" / "val" / "e.jpg").write_bytes(b"no image")
    index = read(yaml, "val")
    assert [(f.kind, f.where) for f in index.findings] == [("unreadable image", "images/val/e.jpg")]
    assert index.starts.tolist() == [0, 2, 3]
    (batch,) = val_loader(ValSet(ImageReader(index), Letterbox(64), batch_size=2), workers=0)
    assert list(batch.image_ids) == [2]
    assert "e.jpg" in batch.unreadable[0]


def test_sizes_are_those_after_exif_rotation(written):
    yaml = written("yolo")
    path = yaml.parent / "images" / "train" / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    reader = ImageReader(read(yaml))
    assert reader.index.sizes[0].tolist() == [100, 60]
    sample = reader.read(0)
    assert sample.image.shape == (100, 60, 3)
    assert sample.boxes_xyxy[1].tolist() == [0, 0, 60, 100]  # the whole image, as labelled


@pytest.mark.parametrize("how", ["beside the list", "dotted", "absolute", "below the root"])
def test_lists(written, how):
    yaml = written("yolo")
    root = yaml.parent
    names = ["a.jpg", "c d.jpg", "missing.jpg"]
    base = {
        "beside the list": "../images/train/",
        "dotted": "./../images/train/",
        "absolute": f"{root}/images/train/",
        "below the root": "images/train/",
    }[how]
    (root / "lists").mkdir()
    (root / "lists" / "some.txt").write_text("\n".join(base + name for name in names))
    yaml.write_text(yaml.read_text().replace("train: images/train", "train: lists/some.txt"))
    index = read(yaml)
    assert index.files.tolist() == ["images/train/a.jpg", "images/train/c d.jpg"]
    assert kinds(index) == ["missing image"]
    assert index.labels.tolist() == [1, 0]


def test_several_folders_and_images_elsewhere(written, tmp_path):
    yaml = written("yolo")
    other = tmp_path / "elsewhere" / "images"
    shutil.copytree(yaml.parent / "images" / "val", other)
    shutil.copytree(yaml.parent / "labels" / "val", other.parent / "labels")
    text = yaml.read_text().replace("images/train", f"[images/train, {other}]")
    yaml.write_text(text)
    index = read(yaml)
    assert len(index) == 5
    assert index.files[3] == str(other / "e.jpg")
    assert ImageReader(index).read(3).labels.tolist() == [0, 1]


def test_labels_beside_the_images(written, tmp_path):
    yaml = written("yolo")
    flat = yaml.parent / "obj_train_data"
    shutil.copytree(yaml.parent / "images" / "train", flat)
    for path in (yaml.parent / "labels" / "train").iterdir():
        shutil.copy(path, flat)
    (flat / "classes.txt").write_text("person\n")
    (flat / "._a.jpg").write_bytes(b"what a Mac leaves behind")
    before = read(yaml)
    yaml.write_text(yaml.read_text().replace("images/train", "obj_train_data"))
    index = read(yaml)
    assert np.array_equal(index.boxes_xyxy, before.boxes_xyxy)
    assert not index.findings


@pytest.mark.parametrize("layout", ["images/{}", "{}/images", "valid/images"])
def test_default_folders_need_no_splits_in_the_yaml(written, layout):
    yaml = written("yolo")
    root = yaml.parent
    (root / "images").rename(root / "i")
    (root / "labels").rename(root / "l")
    for split in ("train", "val"):
        place = (
            layout.format(split)
            if split == "val"
            else layout.format("train").replace("valid", "train")
        )
        shutil.copytree(root / "i" / split, root / place)
        shutil.copytree(root / "l" / split, root / place.replace("images", "labels"))
    yaml.write_text("format: yolo\nnames: [a, b, c]\n")
    assert len(read(yaml)) == 3
    assert len(read(yaml, "val")) == 2


def remove_labels(root):
    shutil.rmtree(root / "labels")


def remove_images(root):
    shutil.rmtree(root / "images" / "train")
    (root / "images" / "train").mkdir()


@pytest.mark.parametrize(
    ("change", "text", "message"),
    [
        (remove_labels, None, "none of the 3 images of `train` has a label file; expected"),
        (remove_images, None, "the split `train` has no images"),
        (None, "train: nowhere\nval: x\nnames: [a]", "nowhere: no such folder or list of images"),
        (None, "train: ../images/train\nval: x\nnames: [a]", "did you mean images/train?"),
        (None, "train: images/train\nval: x\n", "the data YAML needs the names"),
        (
            None,
            "train: images/train/a.jpg\nval: x\nformat: yolo\nnames: [a]",
            "cannot be read as a list",
        ),
    ],
)
def test_unusable_data_sets(written, change, text, message):
    yaml = written("yolo")
    if change:
        change(yaml.parent)
    if text:
        yaml.write_text(text)
    with pytest.raises(UserError) as caught:
        read(yaml)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_of_windows_and_of_wrong_paths(written):
    yaml = written("yolo")
    (yaml.parent / "list.txt").write_text("images\\train\\a.jpg\nimages\\train\\c d.jpg\n")
    yaml.write_text(yaml.read_text().replace("train: images/train", "train: list.txt"))
    assert read(yaml).files.tolist() == ["images/train/a.jpg", "images/train/c d.jpg"]
    (yaml.parent / "list.txt").write_text("pictures/a.jpg\npictures/b.jpg\n")
    with pytest.raises(UserError, match=r"none of the 2 images .* is .*/yolo/pictures/a\.jpg"):
        read(yaml)


def test_widths_that_float32_cannot_hold_are_flat(written):
    yaml = written("yolo")
    (yaml.parent / "labels" / "train" / "a.txt").write_text("0 .5 .5 1e-9 .5\n0 .5 .5 .5 .5\n")
    index = read(yaml)
    assert kinds(index) == ["flat box"]
    assert (index.boxes_xyxy[:, 2:] > index.boxes_xyxy[:, :2]).all()


def test_an_unreadable_image_is_counted_once(written):
    yaml = written("yolo")
    (yaml.parent / "images" / "train" / "a.jpg").write_bytes(b"no image")
    splits = {"train": read(yaml), "val": read(yaml, "val")}
    (problem,) = (
        each
        for each in check_dataset("x", splits, size=64).problems
        if each.kind == "unreadable image"
    )
    assert (problem.count, problem.total) == (1, 5)


def test_label_files_in_capitals_and_beside_the_image(written):
    yaml = written("yolo")
    labels, before = yaml.parent / "labels" / "train", read(yaml)
    (labels / "a.txt").rename(labels / "a.TXT")
    index = read(yaml)
    assert np.array_equal(index.boxes_xyxy, before.boxes_xyxy)
    assert not index.findings
    (labels / "a.TXT").rename(yaml.parent / "images" / "train" / "a.txt")
    found = {(f.kind, f.where) for f in read(yaml).findings}
    assert ("label without image", "images/train/a.txt") in found
