from dataclasses import replace

import numpy as np
import pytest

from detector.data import fingerprint, load_data_yaml, read_split


@pytest.fixture
def index(coco_root):
    (coco_root.parent / "mine.yaml").write_text("format: coco\nroot: coco\n")
    dataset, root = load_data_yaml(str(coco_root.parent / "mine.yaml"))
    return read_split(dataset, root, "train")


def test_counts(index):
    description = fingerprint(index)
    assert description["images"] == 3
    assert description["boxes"] == len(index.boxes_xyxy)
    assert description["crowd"] == 1
    assert description["classes"] == 2


@pytest.mark.parametrize(
    "name",
    ["image_ids", "sizes", "starts", "boxes_xyxy", "labels", "crowd", "names", "category_ids"],
)
def test_any_change_changes_it(index, name):
    value = getattr(index, name)
    if isinstance(value, np.ndarray):
        other = value.copy()
        other[-1] = ~other[-1] if other.dtype == bool else other[-1] + 1
    else:
        other = (*value[:-1], "other")
    assert fingerprint(replace(index, **{name: other}))["digest"] != fingerprint(index)["digest"]


def test_files_count_and_their_folder_does_not(index, tmp_path):
    same = replace(index, folder=tmp_path, findings=(), notes=())
    assert fingerprint(same) == fingerprint(index)
    swapped = type(index.files).pack([*index.files][::-1])
    assert fingerprint(replace(index, files=swapped))["digest"] != fingerprint(index)["digest"]
