"""YOLO's txt files: a line `class x_center y_center width height` an object, in shares of the image.

ROOT/images/train/a.jpg   ROOT/labels/train/a.txt    (or a.txt beside a.jpg, or lists of images)
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detector.data.readers.image_label_pairs import (
    FolderListing,
    LabelFile,
    Pairs,
    file_stem,
    has_image_suffix,
    read_list,
    read_pairs,
    walk_images,
)
from detector.data.store.index import Finding, Index
from detector.errors import UserError

SHARE_LIMIT = 2.0  # a larger value is no share of an image, but pixels
NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "README.txt"}


def pair_yolo(root: Path, sources: Sequence[str], split: str) -> Pairs:
    """The images of a split and their label files.

    Args:
        root: what relative sources count from.
        sources: folders, searched with those below them, or lists: a path a line, relative to the
            list's folder, or to `root`.
        split: `test` may come without labels.

    Raises:
        UserError: a source that is not there, no images, or no labels for any of them.
    """
    paths = [root / source for source in sources]
    pairs, folders, images = Pairs(root, paths[0]), FolderListing(), list[str]()
    for source, path in zip(sources, paths, strict=True):
        if path.is_dir():
            images += walk_images(path)
        elif path.is_file():
            pairs.lists.append(path)
            images += _read_image_list(path, root, folders)
        else:
            raise UserError(f"{path}: no such folder or list of images{_hint(root, source)}")
    labels_of: dict[str, str] = {}
    for image in images:
        folder, name = os.path.split(image)
        if name not in folders[folder]:
            pairs.findings.append(Finding("missing image", pairs.name(image), "no such file"))
            continue
        if folder not in labels_of:
            labels_of[folder] = _labels_folder(folder)
            pairs.findings += _find_orphans(pairs, folders, folder, labels_of[folder])
        label = f"{file_stem(name)}.txt"
        found = label in folders[labels_of[folder]]
        pairs.add(image, f"{labels_of[folder]}{os.sep}{label}" if found else None)
    pairs.check(
        split,
        labelled=split != "test",
        looked_in=" and ".join(f"{folder}/*.txt" for folder in list(labels_of.values())[:2]),
    )
    return pairs


def read_yolo(pairs: Pairs, names: tuple[str, ...], *, keypoints: bool = False) -> Index:
    """The index of a split; label files that do not parse are left out line by line, and named.

    Args:
        pairs: from `pair_yolo`.
        names: the class names, by label.
        keypoints: lines go on with key points behind the box, which are not read.
    """

    def parse(content: bytes, size: tuple[int, int]) -> LabelFile:
        return parse_yolo(content, size, len(names), keypoints=keypoints)

    return read_pairs(pairs, parse, lambda: names, unit="line")


def parse_yolo(
    content: bytes, size: tuple[int, int], num_classes: int, *, keypoints: bool = False
) -> LabelFile:
    """One txt file.

    A line is a class and a box, or a class and the corners of a polygon, x and y in turn, whose
    bounding box is taken. `size` is the image's height and width in pixels.
    """
    height, width = size
    found = LabelFile()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        found.faults.append(("label not parsed", 0, "not a text file; image left out"))
        found.usable = False
        return found
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            label, *values = map(float, words)
        except ValueError:
            found.faults.append(("label not parsed", number, f"not numbers: {line[:60]!r}"))
            continue
        values = values[:4] if keypoints else values
        if len(values) == 4:
            x, y, w, h = values
            x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
            x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
        else:
            what = f"{len(words)} numbers; a box has 5, a polygon 7 or more: {line[:60]!r}"
            found.faults.append(("label not parsed", number, what))
            continue
        if not label.is_integer():
            found.faults.append(("label not parsed", number, f"{words[0]} is no class number"))
        elif not 0 <= label < num_classes:
            what = f"class {words[0]}; `names` has {num_classes}, from 0"
            found.faults.append(("unknown class", number, what))
        elif any(abs(value) > SHARE_LIMIT for value in values):
            what = f"not shares of the image's width and height: {line[:60]!r}"
            found.faults.append(("label not parsed", number, what))
        else:
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            found.boxes.append((*box, int(label), False, number))
    return found


def _read_image_list(path: Path, root: Path, folders: FolderListing) -> list[str]:
    """The images of a list; relative ones count from where the first of them are found."""
    lines = read_list(path)
    bases = [str(path.parent), str(root)]

    def found(base: str) -> int:
        return sum(os.path.normpath(f"{base}/{line}") in folders for line in lines[:100])

    base = max(bases, key=found)  # the list's own folder, unless more are found below the root
    return [
        os.path.normpath(line if Path(line).is_absolute() else f"{base}/{line}") for line in lines
    ]


def _labels_folder(images: str) -> str:
    """`labels` in the place of the last `images` of a path, if there is such a folder; else beside."""
    parts = Path(images).parts
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == "images":
            other = Path(*parts[:at], "labels", *parts[at + 1 :])
            return str(other) if other.is_dir() else images
    return images


def _find_orphans(pairs: Pairs, folders: FolderListing, images: str, labels: str) -> list[Finding]:
    """Label files of a folder that belong to no image of it."""
    stems = {file_stem(name) for name in folders[images] if has_image_suffix(name)}
    lonely = sorted(
        name
        for name in folders[labels]
        if name.endswith(".txt") and name[:-4] not in stems and name not in NOT_LABELS
    )
    return [
        Finding(
            "label without image", pairs.name(f"{labels}{os.sep}{name}"), f"no image in {images}"
        )
        for name in lonely
    ]


def _hint(root: Path, source: str) -> str:
    """For the frequent `train: ../train/images` that means `train/images`."""
    shorter = source.removeprefix("../")
    if shorter != source and (root / shorter).exists():
        return f"; did you mean {shorter}? (relative to {root})"
    return f" (a relative path counts from `path:`, and that from the YAML: {root})"
