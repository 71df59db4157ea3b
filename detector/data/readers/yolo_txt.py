"""YOLO's txt files: one line per object, `class x_center y_center width height`, normalised to [0, 1].

ROOT/images/train/a.jpg   ROOT/labels/train/a.txt    (or a.txt beside a.jpg, or lists of images)
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detector.config import find_written
from detector.data.readers.image_label_pairs import (
    FolderListings,
    LabelFile,
    Pairs,
    file_stem,
    has_image_suffix,
    read_list,
    read_pairs,
    walk_images,
)
from detector.data.readers.yolo_lines import LineFormat, LineTally, parse_yolo
from detector.data.store.index import Finding, Index
from detector.errors import require_file

NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "README.txt"}


def pair_yolo(root: Path, sources: Sequence[str], split: str) -> Pairs:
    """Finds the images of a split and their label files.

    Args:
        root: of relative sources.
        sources: folders, searched with their subfolders, or lists with a path per line, relative to the
            list's folder or to `root`.
        split: `test` may have no labels.

    Raises:
        UserError: a source does not exist, or has no images or no labels.
    """
    paths = [root / source for source in sources]
    pairs, folders, images = Pairs(root, paths[0]), FolderListings(), list[str]()
    for source, path in zip(sources, paths, strict=True):
        if path.is_dir():
            images += walk_images(path)
        else:
            require_file(path, missing=f"no such folder or list of images{_hint(root, source)}")
            pairs.lists.append(path)
            images += _read_image_list(path, root, folders)
    labels_of: dict[str, str] = {}
    for image in images:
        folder, name = os.path.split(image)
        if name not in folders[folder]:
            pairs.findings.append(Finding("missing image", pairs.name(image), "no such file"))
            continue
        if folder not in labels_of:
            labels_of[folder] = _find_label_folder(folder)
            pairs.findings += _find_orphans(pairs, folders, folder, labels_of[folder])
        label = _find_label(name, folders[labels_of[folder]])
        beside = None if label else _find_label(name, folders[folder])
        if beside is not None:
            where, labels = pairs.name(f"{folder}{os.sep}{beside}"), labels_of[folder]
            what = f"not read, since labels are in {labels}: move it there; its image is background"
            pairs.findings.append(Finding("label without image", where, what))
        pairs.add(image, f"{labels_of[folder]}{os.sep}{label}" if label else None)
    pairs.check(
        split,
        labelled=split != "test",
        looked_in=" and ".join(f"{folder}/*.txt" for folder in list(labels_of.values())[:2]),
    )
    return pairs


def read_yolo(pairs: Pairs, names: tuple[str, ...], form: LineFormat) -> Index:
    """Reads the index of a split; malformed lines are skipped and named in the findings.

    Args:
        pairs: from `pair_yolo`.
        names: the class names, by label.
        form: of the lines.

    Raises:
        UserError: lines may be polygons, or boxes with keypoints.
    """
    tally = LineTally()

    def parse(content: bytes, size: tuple[int, int]) -> LabelFile:
        return parse_yolo(content, size, len(names), form, tally)

    index = read_pairs(pairs, parse, lambda: names, unit="line")
    tally.check(str(pairs.source))
    return index


def _read_image_list(path: Path, root: Path, folders: FolderListings) -> list[str]:
    """The images of a list.

    Relative paths start at the list's folder or at the root, whichever has more of the images.
    """
    lines = read_list(path)
    bases = [str(path.parent), str(root)]

    def join(base: str, line: str) -> str:
        return os.path.normpath(os.path.join(base, line))  # noqa: PTH118  # a million lines

    def locate(base: str, line: str) -> str:
        return join(base, find_written(line, lambda written: join(base, written) in folders))

    def count_existing(base: str) -> int:
        return sum(locate(base, line) in folders for line in lines[:100])

    base = max(bases, key=count_existing)  # the first if equal: the list's folder
    return [locate(base, line) for line in lines]


def _find_label(image: str, names: set[str]) -> str | None:
    """The label file of an image among the names of a folder."""
    stem = file_stem(image)
    return next(
        (f"{stem}{suffix}" for suffix in (".txt", ".TXT") if f"{stem}{suffix}" in names), None
    )


def _find_label_folder(images: str) -> str:
    """The path with its last `images` replaced by `labels` if that folder exists, else itself."""
    parts = Path(images).parts
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == "images":
            other = Path(*parts[:at], "labels", *parts[at + 1 :])
            return str(other) if other.is_dir() else images
    return images


def _find_orphans(pairs: Pairs, folders: FolderListings, images: str, labels: str) -> list[Finding]:
    """Findings of label files that belong to no image of the folder."""
    stems = {file_stem(name) for name in folders[images] if has_image_suffix(name)}
    orphans = sorted(
        name
        for name in folders[labels]
        if name.endswith((".txt", ".TXT")) and name[:-4] not in stems and name not in NOT_LABELS
    )
    return [
        Finding(
            "label without image", pairs.name(f"{labels}{os.sep}{name}"), f"no image in {images}"
        )
        for name in orphans
    ]


def _hint(root: Path, source: str) -> str:
    """A hint for an error: `train: ../train/images` often means `train/images`."""
    shorter = source.removeprefix("../")
    if shorter != source and (root / shorter).exists():
        return f"; did you mean {shorter}? (relative to {root})"
    return f" (paths are relative to `path:`, which is relative to the YAML: {root})"
