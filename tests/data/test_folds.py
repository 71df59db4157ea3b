"""Folds: a partition by image, groups whole, classes balanced, areas as annotated."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detector.data import load_data_yaml, read_pool, read_split, write_folds
from detector.data.digits.folders import make_digit_folders
from detector.data.writers.folds import assign_folds, group_names, stratify
from detector.errors import UserError


def read_fold(path):
    """The indices of train and val of a fold."""
    config, root = load_data_yaml(str(path))
    return [read_split(config, root, split) for split in ("train", "val")]


@pytest.fixture
def folds(digits_yaml, tmp_path):
    """Three folds of the 12 + 5 digit images."""
    paths = [tmp_path / "folds" / f"{number}.yaml" for number in range(3)]
    write_folds(read_pool(str(digits_yaml), ("train", "val")), 3, 0, paths)
    return paths


def test_each_image_validates_one_fold_and_trains_the_others(folds, digits_yaml):
    parts = [[{str(i.folder / n) for n in i.files} for i in read_fold(path)] for path in folds]
    every = set.union(*(val for _, val in parts))
    assert len(every) == 17
    assert sum(len(val) for _, val in parts) == 17
    assert all(train == every - val for train, val in parts)
    assert all(len(val) in (5, 6) for _, val in parts)
    config, root = load_data_yaml(str(digits_yaml))
    whole = [read_split(config, root, split) for split in ("train", "val")]
    fold = read_fold(folds[0])
    assert fold[0].names == whole[0].names
    assert sum(len(i.labels) for i in fold) == sum(len(i.labels) for i in whole)
    assert load_data_yaml(str(folds[0]))[0].mirrors is False


def test_boxes_and_areas_stay_with_their_image(coco_root, tmp_path):
    """Of two splits with the same ids; the hand-made areas are not those of the boxes."""
    for split in ("train", "val"):
        path = coco_root / "annotations" / f"instances_{split}2017.json"
        tree = json.loads(path.read_text())
        for entry in tree["annotations"]:
            entry["area"] = 1000 + entry["id"]
        path.write_text(json.dumps(tree))
    data = tmp_path / "hand.yaml"
    data.write_text(f"root: {coco_root}\n")
    pool = read_pool(str(data), ("train", "val"))
    fold = tmp_path / "fold.yaml"
    write_folds(pool, 2, 0, [fold])
    found = []
    for split in ("train", "val"):
        tree = json.loads((tmp_path / f"fold-{split}.json").read_text())
        name_of = {entry["id"]: entry["file_name"] for entry in tree["images"]}
        assert {c["id"]: c["name"] for c in tree["categories"]} == {7: "seven", 3: "three"}
        found += [
            (name_of[a["image_id"]], a["category_id"], a["area"], a["iscrowd"])
            for a in tree["annotations"]
        ]
    expected = [
        (f"{split}2017/{name}", category, 1000 + number, crowd)
        for split in ("train", "val")
        for number, name, category, crowd in [
            (1, "b.jpg", 3, 0),
            (2, "a.jpg", 7, 0),
            (3, "a.jpg", 3, 1),
            (4, "a.jpg", 3, 0),
            (5, "a.jpg", 3, 0),
            (6, "b.jpg", 7, 0),
        ]
    ]
    assert sorted(found) == sorted(expected)


def test_folds_that_exist_are_kept_and_another_seed_differs(digits_yaml, folds, tmp_path):
    pool = read_pool(str(digits_yaml), ("train", "val"))
    before = folds[0].with_name("0-val.json").read_bytes()
    write_folds(pool, 3, 1, folds)
    assert folds[0].with_name("0-val.json").read_bytes() == before
    assert (assign_folds(pool, 3, 0) == assign_folds(pool, 3, 0)).all()
    assert (assign_folds(pool, 3, 0) != assign_folds(pool, 3, 1)).any()


def test_classes_are_balanced_and_groups_whole(tmp_path):
    """60 images in 20 groups; a class that only 6 groups have is in each of 3 folds twice."""
    root = tmp_path / "many"
    make_digit_folders(root, 6)
    data = tmp_path / "many.yaml"
    data.write_text("format: folders\nroot: many\nmirrors: false\n")
    pool = read_pool(str(data), ("train", "val"), r"([^/]+)/[^/]+$")  # by class folder
    chosen = assign_folds(pool, 5, 0)
    assert all(len(set(chosen[pool.groups == group].tolist())) == 1 for group in range(10))
    single = read_pool(str(data), ("train", "val"))
    labels = np.concatenate([index.labels for index in single.indices])
    counts = np.array(
        [np.bincount(labels[assign_folds(single, 3, 0) == fold], minlength=10) for fold in range(3)]
    )
    assert counts.min() == counts.max() == 2
    paths = [tmp_path / "cls.yaml"]
    write_folds(single, 3, 0, paths)
    train, val = read_fold(paths[0])
    assert (np.diff(train.starts) == 1).all()  # what a classifier needs: one class an image
    assert (len(train), len(val)) == (40, 20)


def test_strata_are_equal_to_about_a_group(rng):
    """Of 30 draws of 60 groups: 1 to 3 images, a rare class and a frequent one."""
    for _ in range(30):
        size = rng.integers(1, 4, 60)
        counts = np.stack([rng.binomial(size, 0.1), rng.binomial(size, 0.7), size], 1)
        chosen = stratify(counts, 4, rng)
        sums = np.array([counts[chosen == fold].sum(0) for fold in range(4)])
        assert np.ptp(sums[:, 0]) <= 3  # the rare class is shared out first
        assert np.ptp(sums[:, 2]) <= 12  # of about 30 images a fold


def test_no_fold_is_empty(rng):
    counts = np.array([[50, 50], [0, 1], [0, 1]])
    assert sorted(stratify(counts, 3, rng).tolist()) == [0, 1, 2]


def test_groups_by_name():
    names = ["cam1/a_1.jpg", "cam2/a_2.jpg", "cam1/b_1.jpg"]
    assert group_names(names, "^cam1|^cam2").tolist() == [0, 1, 0]
    assert group_names(names, r"/(\w)_").tolist() == [0, 0, 1]
    assert group_names(names, None).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"cam1/a_1\.jpg does not match"):
        group_names(names, "b_(.)")
    with pytest.raises(UserError, match="not a regular expression"):
        group_names(names, "(")


def test_pools_that_are_refused(digits_yaml, digits_root, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="17 images in 2 groups cannot make 3 folds"):
        read_pool(str(digits_yaml), ("train", "val"), "train|val").require_groups(3)
    place = "{images: train2017, annotations: annotations/instances_train2017.json}"
    twice = tmp_path / "twice.yaml"
    twice.write_text(f"format: coco\nroot: {digits_root}\ntrain: {place}\nval: {place}\n")
    with pytest.raises(UserError, match="is in it twice"):
        read_pool(str(twice), ("train", "val"))

    def read_arrays(*args):
        index = read_split(*args)
        return replace(index, pixels=np.zeros((len(index), 8, 8, 3), np.uint8))

    monkeypatch.setattr("detector.data.writers.folds.read_split", read_arrays)
    with pytest.raises(UserError, match="its images are not files of their own"):
        read_pool(str(digits_yaml), ("train",))
