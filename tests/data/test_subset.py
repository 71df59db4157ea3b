import pytest

from detector.data import load_data_yaml, read_coco, read_split, write_subset
from detector.errors import UserError

WANTED = {"min_boxes": 3, "min_side": 8, "size": 320}


def index_of(root):
    return read_coco(root / "train2017", root / "annotations/instances_train2017.json", None)


def test_both_splits_are_the_chosen_images(digits_root, tmp_path):
    index = index_of(digits_root)
    yaml = write_subset(index, tmp_path / "few", count=3, **WANTED)
    config, root = load_data_yaml(str(yaml))
    train, val = read_split(config, root, "train"), read_split(config, root, "val")
    assert train.files.tolist() == val.files.tolist()
    assert len(train) == 3
    assert train.names == index.names
    assert (train.starts[1:] - train.starts[:-1]).min() >= 3
    assert (train.boxes_xyxy[:, 2:] - train.boxes_xyxy[:, :2]).min() >= 8


def test_not_enough_images(coco_root, tmp_path):
    with pytest.raises(UserError, match="only 0 images have 3 boxes or more"):
        write_subset(index_of(coco_root), tmp_path / "few", count=3, **WANTED)
    assert not (tmp_path / "few").exists()


def test_never_overwrites(digits_root, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        write_subset(index_of(digits_root), tmp_path, count=1, **WANTED)
