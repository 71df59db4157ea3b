r"""Paths with backslashes, as Windows writes them: one rule, wherever a path is written."""

import json

import pytest

from detector.config import find_written, is_of_windows, load_config
from detector.data import load_data_yaml, read_split
from detector.errors import UserError


def read(yaml, split="train"):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split)


def test_a_backslash_is_a_letter_where_the_path_as_written_exists():
    assert find_written(r"a\b", {r"a\b", "a/b"}.__contains__) == r"a\b"
    assert find_written(r"a\b", {"a/b"}.__contains__) == "a/b"
    assert find_written(r"a\b", set().__contains__) == r"a\b"  # messages show it as written
    assert find_written("a/b", set().__contains__) == "a/b"
    paths = (r"C:\data", "d:/data", r"\\server\x", r"data\x", "/c:/data")
    assert [is_of_windows(path) for path in paths] == [True, True, True, False, False]


@pytest.mark.parametrize("train", [r"images\train", r"'.\images\train\'", r"[images\train]"])
def test_paths_of_a_yolo_yaml(written, train):
    yaml = written("yolo")
    before = read(yaml).files.tolist()
    (yaml.parent / "yamls" / "x").mkdir(parents=True)
    text = yaml.read_text().replace("images/train", train).replace("images/val", r"images\val")
    (yaml.parent / "yamls" / "x" / "mine.yaml").write_text("path: ..\\..\n" + text)
    assert read(yaml.parent / "yamls" / "x" / "mine.yaml").files.tolist() == before
    assert len(read(yaml.parent / "yamls" / "x" / "mine.yaml", "val")) == 2


def test_a_file_whose_name_has_a_backslash_is_that_file(written):
    yaml = written("yolo")
    folder = yaml.parent / "images" / "train"
    (folder / "a.jpg").rename(folder / r"a\b.jpg")
    (yaml.parent / "list.txt").write_text("images/train/a\\b.jpg\nimages\\train\\c d.jpg\n")
    yaml.write_text(yaml.read_text().replace("train: images/train", "train: list.txt"))
    (yaml.parent / "labels" / "train" / "a.txt").rename(
        yaml.parent / "labels" / "train" / r"a\b.txt"
    )
    index = read(yaml)
    assert index.files.tolist() == [r"images/train/a\b.jpg", "images/train/c d.jpg"]
    assert index.starts.tolist() == [0, 2, 2]


def test_paths_of_coco(written):
    yaml = written("coco")
    root = yaml.parent
    before = read(yaml)
    path = root / "annotations" / "instances_train2017.json"
    tree = json.loads(path.read_text())
    for entry in tree["images"]:
        entry["file_name"] = f"sub\\{entry['file_name']}"
    tree["images"].append({**tree["images"][0], "id": 99, "file_name": r"sub\gone.jpg"})
    (root / "train2017").rename(root / "pictures")
    (root / "train2017").mkdir()
    (root / "pictures").rename(root / "train2017" / "sub")
    path.write_text(json.dumps(tree))
    yaml.write_text(
        "train: {images: .\\train2017, annotations: annotations\\instances_train2017.json}\n"
        "val: {images: val2017, annotations: annotations/instances_val2017.json}\n"
        f"names: {list(before.names)}\n"
    )
    index = read(yaml)
    assert index.files.tolist() == [f"sub/{name}" for name in before.files]
    assert index.boxes_xyxy.tolist() == before.boxes_xyxy.tolist()
    assert [(f.kind, f.where) for f in index.findings] == [
        ("missing image", str(root / "train2017" / r"sub\gone.jpg"))
    ]


@pytest.mark.parametrize("root", [r"C:\data\mine", "C:/data/mine", r"\\server\data"])
def test_a_folder_of_windows_is_called_that(written, root):
    yaml = written("voc")
    yaml.write_text(f"root: {root}\n")
    with pytest.raises(UserError, match=r"does not exist \(a path of Windows\); expected there:"):
        read(yaml)


def test_paths_of_a_config(written, tmp_path, monkeypatch):
    yaml = written("voc")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("data: {dataset: voc\\data.yaml}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.yaml").write_text("extends: ..\\base.yaml\n")
    assert load_config(r"sub\mine.yaml").data.dataset == str(yaml)
    assert load_config("sub/mine.yaml", data=r"voc\data.yaml").data.dataset == str(yaml)
