"""Folds of a cross-validation: images shared out by class and group, written as data YAMLs.

A fold is COCO json beside its YAML, whatever the format of the data set; its images stay where they are.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detector.data.readers.data_yaml import load_data_yaml
from detector.data.readers.splits import read_split
from detector.data.store.index import Index
from detector.data.writers.convert import coco_tree
from detector.errors import UserError, replace_text


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The images that a cross-validation shares out.

    Attributes:
        dataset: the data YAML.
        splits: that the images are of, such as ("train", "val").
        indices: of these splits.
        mirrors: as in the data YAML.
        files: n paths, split by split.
        groups: int64 [n]; images of one group stay together.
    """

    dataset: str
    splits: tuple[str, ...]
    indices: tuple[Index, ...]
    mirrors: bool
    files: tuple[Path, ...]
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_groups(self) -> int:
        """The number of groups."""
        return int(self.groups.max()) + 1

    def require_groups(self, folds: int) -> None:
        """Checks that there is a group for each fold.

        Raises:
            UserError: there are fewer.
        """
        if self.num_groups < folds:
            raise UserError(
                f"{self.dataset}: {len(self)} images in {self.num_groups} groups cannot make {folds} "
                f"folds; take fewer folds, or smaller groups"
            )

    def describe(self, folds: int) -> str:
        """What is shared out, in a line."""
        groups = f" in {self.num_groups} groups" if self.num_groups < len(self) else ""
        share = len(self) / folds
        return (
            f"{folds} folds of the {len(self)} images of {' and '.join(self.splits)}{groups}: about "
            f"{share:.0f} validate a fold, {len(self) - share:.0f} train it"
        )


def read_pool(dataset: str, splits: Sequence[str], group_by: str | None = None) -> Pool:
    """Reads the images of splits and groups them.

    Args:
        dataset: a data YAML, by path or by its name in data/.
        splits: of train, val and test.
        group_by: a regular expression that is searched in the path of each image below the data set's
            folder; images whose match (its first group, if it has one) is the same are a group. None:
            each image is its own.

    Raises:
        UserError: the data set cannot be read, or its images are not files; its splits have other
            classes; the expression is none, or an image does not match it.
    """
    config, root = load_data_yaml(dataset)
    indices = tuple(read_split(config, root, split) for split in splits)
    for index in indices:
        if index.pixels is not None:
            raise UserError(
                f"{dataset}: its images are not files of their own, which folds need; write them out, a "
                f"folder per class (`format: folders`)"
            )
        if index.names != indices[0].names:
            raise UserError(
                f"{index.annotations}: its classes differ from those of {indices[0].annotations}; splits "
                f"can be joined only if they have the same"
            )
    files = tuple((index.folder / name).absolute() for index in indices for name in index.files)
    if not files:
        raise UserError(f"{dataset}: no images in {' and '.join(splits)}")
    require_unique_files(dataset, files)
    shown = [os.path.relpath(path, root).replace(os.sep, "/") for path in files]
    groups = group_names(shown, group_by)
    return Pool(dataset, tuple(splits), indices, config.mirrors, files, groups)


def require_unique_files(dataset: str, files: Sequence[Path]) -> None:
    """Checks that no image is in the pool twice: one copy would train what the other validates.

    Raises:
        UserError: names the first that is.
    """
    seen: set[Path] = set()
    for path in files:
        if path in seen:
            raise UserError(
                f"{dataset}: {path} is in it twice; remove one entry, or share out one split alone"
            )
        seen.add(path)


def group_names(names: Sequence[str], group_by: str | None) -> np.ndarray:
    """The group of each name, int64 [n], counted from 0; arguments as in `read_pool`.

    Raises:
        UserError: not a regular expression, or a name does not match it.

    Example:
        >>> group_names(["a_1.jpg", "b_1.jpg", "a_2.jpg"], "^[a-z]").tolist()
        [0, 1, 0]
    """
    if group_by is None:
        return np.arange(len(names))
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"--group-by {group_by!r}: not a regular expression: {error}") from None
    keys = []
    for name in names:
        match = pattern.search(name)
        if match is None:
            raise UserError(f"--group-by {group_by!r}: {name} does not match; all images have to")
        keys.append(match[1 if pattern.groups else 0])
    return np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)[1]


def assign_folds(pool: Pool, folds: int, seed: int) -> np.ndarray:
    """The fold that each image validates, int64 [n], in 0 .. `folds` - 1.

    Groups stay together; folds have about as many images, and about as many with each class.

    Args:
        pool: the images.
        folds: 2 or more.
        seed: another one gives another partition.

    Raises:
        UserError: fewer groups than folds.
    """
    pool.require_groups(folds)
    classes = len(pool.indices[0].names)
    has_class = np.zeros((len(pool), classes + 1), np.int64)
    first = 0
    for index in pool.indices:
        has_class[first + index.box_image_numbers(), index.labels] = 1
        first += len(index)
    has_class[:, classes] = 1  # an image counts as such, besides its classes
    counts = np.zeros((pool.num_groups, classes + 1), np.int64)
    np.add.at(counts, pool.groups, has_class)
    return stratify(counts, folds, np.random.default_rng(seed))[pool.groups]


def stratify(counts: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Shares groups out so that the folds have about equal sums of each column.

    The rarest column goes first, each of its groups to the fold that lacks most of it (Sechidis et al.,
    "On the Stratification of Multi-Label Data", 2011). scikit-learn's `StratifiedGroupKFold` draws only
    among groups with the same counts, so that each seed would have the same folds.

    Args:
        counts: int64 [groups, columns], of a group; the last column is its size, 1 or more.
        folds: at most the number of groups.
        rng: of the order of the groups, and of ties.

    Returns:
        int64 [groups], no fold of which is empty.
    """
    lacking = np.tile(counts.sum(0) / folds, (folds, 1))  # [folds, columns]
    left = counts.sum(0)
    chosen = np.full(len(counts), -1)
    order = rng.permutation(len(counts))
    while (chosen < 0).any():
        column = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for group in order[(chosen[order] < 0) & (counts[order, column] > 0)]:
            keys = (rng.random(folds), lacking[:, -1], lacking[:, column])
            fold = np.lexsort(keys)[-1]
            chosen[group] = fold
            lacking[fold] -= counts[group]
            left -= counts[group]
    for fold in sorted(set(range(folds)) - set(chosen.tolist())):
        largest = np.bincount(chosen, minlength=folds).argmax()
        chosen[(chosen == largest).nonzero()[0][0]] = fold
    return chosen


def write_folds(pool: Pool, folds: int, seed: int, paths: Sequence[Path]) -> None:
    """Writes the data YAMLs of the first folds of a partition, each with two json files beside it.

    A fold that exists is kept: whatever happens to the data set, the runs of a study see one partition.

    Args:
        pool: all images.
        folds, seed: as in `assign_folds`.
        paths: of the YAMLs, at most `folds`.

    Raises:
        UserError: fewer groups than folds, or a file cannot be written.
    """
    if all(path.exists() for path in paths):
        return
    assigned = assign_folds(pool, folds, seed)
    root = Path(os.path.commonpath([file.parent for file in pool.files]))
    tree = join_trees(pool, root)
    head = {"format": "coco", "root": str(root), "names": list(pool.indices[0].names)}
    for number, path in enumerate(paths):
        if path.exists():
            continue
        splits = {}
        for split, kept in (("train", assigned != number), ("val", assigned == number)):
            place = path.with_name(f"{path.stem}-{split}.json").absolute()
            replace_text(place, json.dumps(select_images(tree, kept)))
            splits[split] = {"images": ".", "annotations": str(place)}
        values = {**head, "mirrors": pool.mirrors, **splits}
        about = (
            f"# fold {number} of {folds} of {pool.dataset} ({', '.join(pool.splits)}), seed {seed}"
        )
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        replace_text(path, f"{about}\n{text}")  # last: a fold exists once its YAML does


def join_trees(pool: Pool, root: Path) -> dict[str, list[dict[str, Any]]]:
    """The COCO json of all images, numbered from 1 in the order of the pool; areas as annotated.

    Args:
        pool: the images.
        root: the folder that file names are relative to.
    """
    names = pool.indices[0].names
    number_of = dict(zip(names, pool.indices[0].category_ids.tolist(), strict=True))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in pool.indices:
        tree = coco_tree(index)
        first = len(images) + 1
        image_of = {old: first + at for at, old in enumerate(index.image_ids.tolist())}
        own = dict(zip(index.category_ids.tolist(), index.names, strict=True))
        for number, (height, width) in zip(image_of.values(), index.sizes.tolist(), strict=True):
            name = os.path.relpath(pool.files[number - 1], root).replace(os.sep, "/")
            entry = {"id": number, "file_name": name, "height": height, "width": width}
            images.append(entry)
        for entry in tree["annotations"]:
            if entry["image_id"] in image_of and entry["category_id"] in own:
                kept = {key: entry[key] for key in ("bbox", "area", "iscrowd") if key in entry}
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_of[entry["image_id"]],
                        "category_id": number_of[own[entry["category_id"]]],
                        **kept,
                    }
                )
    categories = [{"id": number, "name": name} for name, number in number_of.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def select_images(
    tree: dict[str, list[dict[str, Any]]], kept: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """The tree of `join_trees` with the images of `kept`, bool [n], alone."""
    ids = {number + 1 for number in kept.nonzero()[0].tolist()}
    return {
        "images": [entry for entry in tree["images"] if entry["id"] in ids],
        "annotations": [entry for entry in tree["annotations"] if entry["image_id"] in ids],
        "categories": tree["categories"],
    }
