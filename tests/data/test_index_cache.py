import json
import os
import shutil
import time
from dataclasses import fields

import numpy as np
import pytest

from detector.data import load_data_yaml, read_split
from detector.data.readers import splits
from detector.data.store import index_cache as cache
from detector.data.store.index import StringArray

FORMATS = ("coco", "yolo", "voc")
LABELS = {
    "coco": "annotations/instances_train2017.json",
    "yolo": "labels/train/a.txt",
    "voc": "Annotations/a.xml",
}


@pytest.fixture(autouse=True)
def _small_sets_count(monkeypatch, tmp_path):
    """Makes the small data set count as large, and as written a while ago."""
    monkeypatch.setattr(splits, "CACHED_FROM", 1)
    monkeypatch.setattr(splits, "CACHED_JSON", 1)
    monkeypatch.setattr(cache, "SETTLED", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def opened(monkeypatch):
    """A list that grows with each reading of the label files."""
    calls = []
    for name in ("read_coco", "read_yolo", "read_voc"):
        real = getattr(splits, name)

        def watched(*words, real=real, **options):
            calls.append(real.__name__)
            return real(*words, **options)

        monkeypatch.setattr(splits, name, watched)
    return calls


def read(yaml, split="train", **options):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split, **options)


def same(a, b):
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y), field.name
        elif isinstance(x, StringArray):
            assert list(x) == list(y)
        else:
            assert x == y, field.name
    return True


def files_of(root):
    return sorted((root / ".detector").glob("*"))


def times(path):
    """Restores a file's times (except that of its inode's change)."""
    stat = path.stat()
    return lambda: os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("form", FORMATS)
def test_read_once(written, opened, form):
    yaml = written(form)
    first = read(yaml)
    assert same(read(yaml), first)
    assert len(opened) == 1
    (path,) = files_of(yaml.parent)
    with np.load(path, allow_pickle=False) as content:
        assert "boxes_xyxy" in content.files
    assert read(yaml, classes=("cat",)).names == ("cat",)  # chosen after the cache
    read(yaml, "val")
    assert len(opened) == 2
    assert len(files_of(yaml.parent)) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_findings_are_kept(written, opened, form):
    yaml = written(form)
    path = yaml.parent / LABELS[form]
    if form == "coco":
        tree = json.loads(path.read_text())
        tree["annotations"][0]["bbox"][2] = 0
        path.write_text(json.dumps(tree))
    else:
        path.write_text(path.read_text().replace("1 ", "x ", 1).replace("<xmin>11", "<xmin>x"))
    first = read(yaml)
    assert len(first.findings) == 1
    assert same(read(yaml), first)
    assert len(opened) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_label_of_the_same_size_and_time_is_detected(written, opened, form):
    yaml = written(form)
    path = yaml.parent / LABELS[form]
    back = times(path)
    read(yaml)
    old, new = {"coco": ("10, 5", "12, 5"), "yolo": ("1 ", "2 "), "voc": ("<xmin>11", "<xmin>12")}[
        form
    ]
    text = path.read_text()
    time.sleep(0.02)  # a tick of the file system's clock; `SETTLED` is for edits within one
    path.write_text(text.replace(old, new, 1))
    back()
    index = read(yaml)
    assert len(opened) == 2
    assert index.labels[0] == 2 if form == "yolo" else index.boxes_xyxy[0, 0] in (11, 12)
    assert len(files_of(yaml.parent)) == 1  # the old file is replaced


def add_label(root):
    shutil.copy(root / "labels" / "val" / "e.txt", root / "labels" / "train" / "new.txt")


def add_image(root):
    shutil.copy(root / "images" / "val" / "e.jpg", root / "images" / "train" / "new.jpg")


def remove_image(root):
    (root / "images" / "train" / "a.jpg").unlink()


def change_image(root):
    shutil.copy(root / "images" / "val" / "e.jpg", root / "images" / "train" / "a.jpg")


@pytest.mark.parametrize("change", [add_label, add_image, remove_image, change_image])
def test_every_change_of_the_files_is_detected(written, opened, change):
    yaml = written("yolo")
    before = read(yaml)
    change(yaml.parent)
    after = read(yaml)
    assert len(opened) == 2
    assert (
        list(after.files) != list(before.files)
        or after.findings
        or (after.sizes.tolist() != before.sizes.tolist())
    )


def test_a_removed_image_of_a_json_is_detected(written):
    yaml = written("coco")
    assert len(read(yaml)) == 3
    (yaml.parent / "train2017" / "a.jpg").unlink()
    assert len(read(yaml)) == 2


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("coco", "[person, cat, fire truck]", "[cat, person, fire truck]"),
        ("yolo", "0: person", "0: human"),
        ("voc", "names", "voc_zero_based: true\nnames"),
    ],
)
def test_other_options_have_another_cache_entry(written, opened, form, old, new):
    yaml = written(form)
    first = read(yaml)
    text = yaml.read_text()
    yaml.write_text(text.replace(old, new))
    read(yaml)
    yaml.write_text(text)
    assert same(read(yaml), first)
    assert len(opened) == 2  # each has a file of its own


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "noise", "flipped", "encrypted", "FIFO", "version"]
)
def test_a_damaged_cache_is_read_again(written, opened, damage, monkeypatch):
    yaml = written("voc")
    first = read(yaml)
    (path,) = files_of(yaml.parent)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[data.index(first.boxes_xyxy.tobytes())] ^= 1
    if damage == "encrypted":  # a flag of the first record, here and in the directory
        data[6] |= 1
        data[data.index(b"PK\1\2") + 8] |= 1
    content = {"empty": b"", "cut": data[: len(data) // 2], "noise": os.urandom(500)}
    path.write_bytes(content.get(damage, bytes(data)))
    if damage == "FIFO":
        path.unlink()
        os.mkfifo(path)
    if damage == "version":
        monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert same(read(yaml), first)
    assert len(opened) == 2
    assert same(read(yaml), first)
    assert len(opened) == 2  # and written again


def test_recently_changed_files_are_not_cached(written, opened, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 60.0)
    yaml = written("yolo")
    read(yaml), read(yaml)
    assert len(opened) == 2
    assert not files_of(yaml.parent)


def test_the_users_cache_folder_is_used_if_the_data_is_read_only(
    written, opened, monkeypatch, tmp_path
):
    yaml = written("yolo")
    real = cache.save_index

    def refuse(index, path, key):
        if yaml.parent in path.parents:
            raise PermissionError(path)
        real(index, path, key)

    monkeypatch.setattr(cache, "save_index", refuse)
    assert same(read(yaml), read(yaml))
    assert len(opened) == 1
    assert len(list((tmp_path / "user" / "detector").glob("*.npz"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/no")
    read(yaml)  # nowhere to write is no fault
    assert len(opened) == 2


def test_no_incomplete_file_remains(written, monkeypatch):
    yaml = written("yolo")

    def full(*words, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(cache.np, "savez", full)
    assert len(read(yaml)) == 3
    assert not files_of(yaml.parent)


def test_small_data_sets_are_not_cached(written, monkeypatch):
    monkeypatch.setattr(splits, "CACHED_FROM", 100)
    yaml = written("yolo")
    read(yaml)
    assert not (yaml.parent / ".detector").exists()
