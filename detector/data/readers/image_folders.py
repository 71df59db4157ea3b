"""Image folders, one per class, as of ImageNet: train/CLASS/*.jpg; every image is one box."""

import os
from pathlib import Path

import numpy as np

from detector.data.readers.image_label_pairs import UNREADABLE_SIZE, Pairs, walk_images
from detector.data.store.image_files import UnreadableImage
from detector.data.store.image_sizes import image_size, map_in_threads
from detector.data.store.index import Finding, Index, make_index
from detector.errors import UserError


def list_image_folders(
    root: Path, place: str, names: tuple[str, ...] | None
) -> tuple[Pairs, tuple[str, ...]]:
    """The images of a split, class by class, and the names of the classes.

    Args:
        root: of the data set.
        place: the split's folder, relative to it.
        names: of the class folders, in the order of their labels; None: all, sorted.

    Raises:
        UserError: no class folders, or one of `names` is missing.
    """
    folder = root / place
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; expected one that holds a folder per class")
    found = tuple(sorted(each.name for each in folder.iterdir() if each.is_dir()))
    missing = [name for name in names or () if name not in found]
    if missing or not found:
        what = f"no folder of the class {missing[0]}" if missing else "no folders, one per class"
        raise UserError(f"{folder}: {what}; expected {place}/CLASS/*.jpg")
    pairs = Pairs(root, folder)
    for name in names or found:
        for path in walk_images(folder / name):
            pairs.add(path, None)
    pairs.check(place, labelled=False, looked_in="")
    return pairs, names or found


def read_image_folders(pairs: Pairs, names: tuple[str, ...]) -> Index:
    """The index of a split; the box of an image is the whole image, its label that of its folder."""
    label_of = {name: label for label, name in enumerate(names)}
    split = f"{pairs.name(str(pairs.source))}{os.sep}"
    labels = [label_of[name.removeprefix(split).partition(os.sep)[0]] for name in pairs.images]
    sizes, findings = [], list(pairs.findings)
    results = map_in_threads(
        lambda name: _find_size(str(pairs.folder / name)),
        pairs.images,
        label=f"read {pairs.source.name}",
    )
    for name, size in zip(pairs.images, results, strict=True):
        if isinstance(size, str):
            findings.append(Finding("unreadable image", name, size))
            size = UNREADABLE_SIZE
        sizes.append(size)
    count = len(sizes)
    whole = np.zeros((count, 4))
    whole[:, 2:] = np.array(sizes)[:, ::-1]
    return make_index(
        folder=pairs.folder,
        files=pairs.images,
        image_ids=np.arange(1, count + 1),
        sizes=np.array(sizes, np.int64),
        owner=np.arange(count),
        boxes_xyxy=whole,
        labels=np.array(labels, np.int64),
        crowd=np.zeros(count, bool),
        names=names,
        category_ids=np.arange(1, len(names) + 1),
        annotations=pairs.source,
        findings=findings,
        where=lambda row: pairs.images[row],
    )


def _find_size(path: str) -> tuple[int, int] | str:
    """Height and width, pixels; or why they cannot be read."""
    try:
        return image_size(path)
    except UnreadableImage as error:
        return str(error).removeprefix(f"{path}: ")
