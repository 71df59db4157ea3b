"""COCO json in COCO's folder layout.

ROOT/annotations/instances_train2017.json   instances_val2017.json
ROOT/train2017/*.jpg                        ROOT/val2017/*.jpg
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.coco_json import CocoJson, read_coco_json, show_box
from detector.config import find_written
from detector.data.readers.image_label_pairs import UNREADABLE_SIZE
from detector.data.store.image_files import UnreadableImage
from detector.data.store.image_sizes import image_size, map_in_threads
from detector.data.store.index import Finding, Index, describe_size_mismatch, make_index
from detector.data.store.index_cache import Fingerprint
from detector.errors import UserError

LAYOUT = (
    "expected ROOT/annotations/instances_train2017.json and instances_val2017.json, "
    "ROOT/train2017/*.jpg and ROOT/val2017/*.jpg"
)


def read_json(path: Path, *, labelled: bool = True) -> CocoJson:
    """Reads and checks a COCO annotation file; unless `labelled`, it may have no annotations.

    Raises:
        UserError: as `read_coco_json`; a missing file with the expected layout.
    """
    return read_coco_json(path, labelled=labelled, hint=LAYOUT)


def read_coco(
    folder: Path, annotations: Path, names: tuple[str, ...] | None, *, labelled: bool = True
) -> Index:
    """Reads the index of one split; unless `labelled`, it may have no annotations.

    Labels are numbered in the order of the json's category ids or, if given, of `names`, which the json
    has to contain. Images without objects are kept. Boxes are clipped to their image; boxes of zero size
    or wholly outside, and images whose file is missing, are skipped and named in `findings`.

    Raises:
        UserError: not COCO's format, an unknown category or image id, a duplicate id, or no image file
            exists.
    """
    content = read_json(annotations, labelled=labelled)
    by_name = find_category_ids(content, names)
    kept, findings = _find_image_files(content.images, folder, annotations)
    sizes, odd_sizes = _resolve_sizes(kept, folder)
    findings += odd_sizes + _find_faults(content, annotations)
    if names is None:
        findings += _find_root_categories(content, annotations)
    image_ids = np.array([entry["id"] for entry in kept], np.int64)
    columns = _make_columns(content.annotations, list(by_name.values()))
    order, starts = _group_by_image(columns["image_id"], image_ids)
    boxes, crowd, labels = (columns[key][order] for key in ("box", "crowd", "label"))

    def where(row: int) -> str:
        return f"{annotations.name}: annotation {columns['id'][order[row]]}"

    return make_index(
        folder=folder,
        files=[entry["file_name"] for entry in kept],
        image_ids=image_ids,
        sizes=sizes,
        owner=np.repeat(np.arange(len(kept)), np.diff(starts)),
        boxes_xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        labels=labels,
        crowd=crowd,
        names=tuple(by_name),
        category_ids=np.array(list(by_name.values()), np.int64),
        annotations=annotations,
        findings=findings,
        where=where,
    )


def fingerprint_coco(folder: Path, annotations: Path) -> Fingerprint:
    """A fingerprint of the json's content, and of name, size and times of all files of the folder."""
    digest, newest = hashlib.blake2b(annotations.read_bytes()), 0
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            try:
                status = os.stat(f"{parent}{os.sep}{name}")  # noqa: PTH116  # 118,000 in a second
            except OSError:
                continue
            facts = (parent, name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(repr(facts).encode("utf-8", "surrogateescape"))
    return Fingerprint(digest.hexdigest(), newest)


def find_category_ids(content: CocoJson, names: tuple[str, ...] | None) -> dict[str, int]:
    """The category id of each class, by label: in the order of `names` or, by default, of the ids.

    Raises:
        UserError: the file has no categories, or none of that name.
    """
    if not content.categories:
        raise UserError(f"{content.source}: its list of categories is empty")
    known = {entry["name"]: entry["id"] for entry in content.categories}
    if names is None:
        return dict(sorted(known.items(), key=lambda item: item[1]))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{content.source}: no category {unknown[0]!r}, which is in `names` of the data YAML "
            f"(it has: {', '.join(known)})"
        )
    return {name: known[name] for name in names}


def _find_faults(content: CocoJson, path: Path) -> list[Finding]:
    """Findings of annotations that were skipped and of categories that were merged."""
    skipped = [
        Finding(
            "not finite", f"{path.name}: annotation {number}", f"box {show_box(box)} is not finite"
        )
        for number, box in content.non_finite
    ]
    return skipped + [
        Finding(
            "duplicate category",
            f"{path.name}: category {name!r}",
            f"ids {', '.join(map(str, ids))} have this name and are read as one class",
        )
        for name, ids in content.merged
    ]


def _find_root_categories(content: CocoJson, path: Path) -> list[Finding]:
    """Findings of categories without boxes that only group others, as exporters write them with id 0."""
    used = {entry["category_id"] for entry in content.annotations}
    groups = {
        entry.get("supercategory")
        for entry in content.categories
        if isinstance(entry.get("supercategory"), str) and entry["supercategory"] != entry["name"]
    }
    names = [entry["name"] for entry in content.categories]
    roots = [e["name"] for e in content.categories if e["id"] not in used and e["name"] in groups]
    others = [name for name in names if name not in roots]
    remedy = f"to train without it, put `names: [{', '.join(others)}]` into the data YAML"
    return [
        Finding(
            "root category",
            f"{path.name}: category {name!r}",
            f"it groups other categories and has no boxes of its own, but is a class; {remedy}",
        )
        for name in roots
    ]


def _find_image_files(
    images: Sequence[dict[str, Any]], folder: Path, path: Path
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The images whose files exist, under the names of these, and findings of the others."""
    if not folder.is_dir():
        raise UserError(f"{folder}: image folder not found; {LAYOUT}")
    on_disk = {entry.name for entry in folder.iterdir()}  # one listing instead of a stat per image

    def exists(name: str) -> bool:
        return name in on_disk or (not {"/", os.sep}.isdisjoint(name) and _is_file(folder / name))

    present, missing = list[dict[str, Any]](), list[Finding]()
    for entry in images:
        name = find_written(entry["file_name"], exists)
        if exists(name):
            present.append(entry if name == entry["file_name"] else {**entry, "file_name": name})
        else:
            missing.append(Finding("missing image", str(folder / name), "no such file"))
    if images and not present:
        first = images[0]["file_name"]
        raise UserError(
            f"{folder}: has none of the {len(images)} images of {path.name}; the first is {first!r}"
        )
    return present, missing


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _resolve_sizes(
    images: Sequence[dict[str, Any]], folder: Path
) -> tuple[np.ndarray, list[Finding]]:
    """Height and width of the images, int64 [n, 2], and findings where file and json differ.

    The file's count, as for the other formats: boxes are pixels of the upright image, even where an
    exporter that ignores the camera's orientation has swapped width and height. The json's size is used
    only for a file that cannot be read.
    """

    def read_size(name: str) -> tuple[int, int] | str:
        try:
            return image_size(str(folder / name))
        except UnreadableImage as error:
            return str(error)

    sizes: list[tuple[int, int]] = []
    findings: list[Finding] = []
    names = [entry["file_name"] for entry in images]
    actual_sizes = map_in_threads(read_size, names, label=f"read sizes of {folder.name}")
    for entry, actual in zip(images, actual_sizes, strict=True):
        annotated = (entry["height"], entry["width"])
        known = None not in annotated
        where = f"{folder.name}/{entry['file_name']}"
        if isinstance(actual, str):  # reading the image will fail, and report it
            if not known:
                findings.append(Finding("unreadable image", where, actual))
            sizes.append(annotated if known else UNREADABLE_SIZE)
            continue
        if known and annotated != actual:
            what = describe_size_mismatch(annotated, actual)
            findings.append(Finding("size mismatch", where, what))
        sizes.append(actual)
    return np.array(sizes, np.int64).reshape(-1, 2), findings


def _make_columns(
    annotations: Sequence[dict[str, Any]], category_ids: list[int]
) -> dict[str, np.ndarray]:
    """The annotations of these categories as columns; labels are places in `category_ids`."""
    label_of = {number: label for label, number in enumerate(category_ids)}
    chosen = [entry for entry in annotations if entry["category_id"] in label_of]
    return {
        "id": np.array([entry["id"] for entry in chosen], np.int64),
        "image_id": np.array([entry["image_id"] for entry in chosen], np.int64),
        "label": np.array([label_of[entry["category_id"]] for entry in chosen], np.int64),
        "crowd": np.array([entry["iscrowd"] for entry in chosen], bool),
        "box": np.array([entry["bbox"] for entry in chosen], np.float64).reshape(-1, 4),
    }


def _group_by_image(owners: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts rows by image, in the order of `image_ids`, without those of other images.

    Args:
        owners: int64 [m], the image id of each row.
        image_ids: int64 [n].

    Returns:
        The row numbers; and int64 [n + 1], where those of each image start.
    """
    by_id = np.argsort(image_ids, kind="stable")
    if not len(image_ids) or not len(owners):
        return np.zeros(0, np.int64), np.zeros(len(image_ids) + 1, np.int64)
    at = np.searchsorted(image_ids[by_id], owners).clip(max=len(image_ids) - 1)
    position = by_id[at]
    known = image_ids[position] == owners
    rows = known.nonzero()[0]
    order = rows[np.argsort(position[rows], kind="stable")]
    counts = np.bincount(position[rows], minlength=len(image_ids))
    return order, np.concatenate([[0], np.cumsum(counts)])
