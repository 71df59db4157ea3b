"""Commands on data sets of every format."""

import pytest

from tests.commands.running import SMALL, table_of
from tests.data.conftest import WRITERS

FORMATS = ("coco", "yolo", "voc")


@pytest.fixture
def yamls(tmp_path):
    """One small data set in three formats, which their YAMLs do not name."""
    paths = {}
    for form, write in WRITERS.items():
        root = tmp_path / form
        root.mkdir()
        paths[form] = root / "data.yaml"
        paths[form].write_text(write(root))
    return paths


def numbers(text):
    return [line.split()[:2] for line in text.splitlines() if line.startswith(("train:", "val:"))]


def test_convert_and_validate(tool, yamls, tmp_path):
    """From VOC to COCO to YOLO: the same weights have the same metrics on each."""
    words = ["--data", yamls["voc"], "--to", "coco", "--out", "c"]
    status, out, err = tool("convert_data", *words)
    assert status == 0, err
    assert "detected format Pascal VOC" in out
    assert "train: 3 images, 4 boxes" in out
    assert "--data c/data.yaml" in out
    status, out, err = tool(
        "convert_data", "--data", "c/data.yaml", "--to", "yolo", "--out", "y", "--link"
    )
    assert status == 0, err
    assert "train: 3 images, 3 boxes; 1 crowd boxes skipped" in out
    assert (tmp_path / "y" / "images" / "train" / "a.jpg").is_symlink()
    status, _, err = tool("convert_data", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert "c: exists already" in err

    train = ["--cfg", "yolov4-pacsp-n-leaky", *SMALL, "train.epochs=1", "eval.conf=0.0"]
    status, out, err = tool("train", *train, "--data", "y/data.yaml", "--out", "run")
    assert status == 0, err
    assert "detected format YOLO txt" in out
    assert "3 classes, 3 training and 2 validation images" in out
    assert len(table_of(out)) == 12
    tables = []
    for data in (yamls["voc"], "c/data.yaml"):
        status, out, err = tool("val", "--weights", "run/best.pt", "--data", data)
        assert status == 0, err
        tables.append(table_of(out))
    assert tables[0] == tables[1]


def test_some_classes(tool, yamls):
    words = ["--cfg", "yolov4-pacsp-n-leaky", *SMALL, "train.epochs=1", "--data", yamls["voc"]]
    status, out, err = tool("train", *words, "data.classes=[person,cat]", "--out", "run")
    assert status == 0, err
    assert "2 classes, 3 training and 2 validation images" in out
    status, out, err = tool("val", "--weights", "run/best.pt")
    assert status == 0, err
    status, _, err = tool("train", *words, "data.classes=[persn]")
    assert (status, err.count("\n")) == (2, 1)
    assert "has no class 'persn'; did you mean person?" in err
    for path in (yamls["voc"].parent / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<name>cat", "<name>person"))
    status, _, err = tool("train", *words, "data.classes=[cat]")
    assert (status, err.count("\n")) == (2, 1)
    assert "none of its 3 images has a labelled object" in err
    status, _, err = tool("train", *words, "data.classes=[cat,cat]")
    assert (status, err.count("\n")) == (2, 1)
    assert "classes: 'cat' is a duplicate" in err


def test_duplicate_boxes_are_not_reported_as_skipped(tool, yamls):
    path = yamls["yolo"].parent / "labels" / "train" / "a.txt"
    path.write_text(path.read_text() * 2 + "9 .5 .5 1 1\n")
    status, out, err = tool("convert_data", "--data", yamls["yolo"], "--to", "coco", "--out", "c")
    assert status == 0, err
    skipped = [line for line in out.splitlines() if line.startswith("skipped")]
    assert skipped == [
        "skipped: labels/train/a.txt: line 5: class 9; `names` has 3 classes, numbered from 0"
    ]
    assert "train: 3 images, 5 boxes" in out


def test_help(tool):
    status, out, _ = tool("convert_data", "--help")
    assert status == 0
    assert "python tools/convert_data.py" in out.split("example:")[1]
