"""COCO json in COCO's folder layout.

ROOT/annotations/instances_train2017.json   instances_val2017.json
ROOT/train2017/*.jpg                        ROOT/val2017/*.jpg
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.store.index import Finding, Index, make_index
from detector.errors import UserError

LAYOUT = (
    "expected ROOT/annotations/instances_train2017.json and instances_val2017.json, "
    "ROOT/train2017/*.jpg and ROOT/val2017/*.jpg"
)


def read_json(path: Path, *, labelled: bool = True) -> dict[str, Any]:
    """Reads a COCO annotation file; unless `labelled`, it may have no annotations (image_info).

    Raises:
        UserError: the file is missing, is not json, or lacks one of COCO's three lists.
    """
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable json file ({error})") from None
    keys = ("images", "annotations", "categories")
    if not labelled and isinstance(tree, dict):
        tree.setdefault("annotations", [])
    missing = [
        key for key in keys if not isinstance(tree, dict) or not isinstance(tree.get(key), list)
    ]
    if missing:
        raise UserError(
            f"{path}: not a COCO annotation file: list {', '.join(map(repr, missing))} is missing"
        )
    return tree


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
    tree = read_json(annotations, labelled=labelled)
    categories = _index_by_id(tree["categories"], annotations, "category")
    images = _index_by_id(tree["images"], annotations, "image")
    names, category_ids = _order_labels(categories, names, annotations)
    findings: list[Finding] = []
    present = _find_image_files(images, folder, annotations, findings)
    kept = [image_id for image_id in images if images[image_id]["file_name"] in present]
    columns = _parse_annotations(tree["annotations"], images, category_ids, annotations)
    order, starts = _group_by_image(columns["image_id"], np.array(kept, np.int64))
    boxes, crowd, labels = (columns[key][order] for key in ("box", "crowd", "label"))
    owner = np.repeat(np.arange(len(kept)), np.diff(starts))

    def where(row: int) -> str:
        return f"{annotations.name}: annotation {columns['id'][order[row]]}"

    return make_index(
        folder=folder,
        files=[images[i]["file_name"] for i in kept],
        image_ids=np.array(kept, np.int64),
        sizes=np.array([[images[i]["height"], images[i]["width"]] for i in kept], np.int64),
        owner=owner,
        boxes_xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        labels=labels,
        crowd=crowd,
        names=names,
        category_ids=category_ids,
        annotations=annotations,
        findings=findings,
        where=where,
    )


def _index_by_id(entries: list[dict[str, Any]], path: Path, kind: str) -> dict[int, dict[str, Any]]:
    """Entries by id, in the order of the file."""
    needed = {"category": ("id", "name"), "image": ("id", "file_name", "width", "height")}[kind]
    for entry in entries:
        for key in needed:
            if not isinstance(entry, dict) or key not in entry:
                raise UserError(f"{path}: a {kind} without {key!r}: {str(entry)[:80]}")
    counts = Counter(entry["id"] for entry in entries)
    duplicates = [number for number, count in counts.items() if count > 1]
    if duplicates:
        raise UserError(
            f"{path}: duplicate {kind} id {duplicates[0]}: it occurs {counts[duplicates[0]]} times"
        )
    return {entry["id"]: entry for entry in entries}


def _order_labels(
    categories: dict[int, dict[str, Any]], names: tuple[str, ...] | None, path: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    if not categories:
        raise UserError(f"{path}: its list of categories is empty")
    if names is None:
        ids = sorted(categories)
        return tuple(categories[i]["name"] for i in ids), np.array(ids, np.int64)
    by_name = {entry["name"]: i for i, entry in categories.items()}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f"{path}: no category {unknown[0]!r}, which is in `names` of the data YAML "
            f"(it has: {', '.join(by_name)})"
        )
    return names, np.array([by_name[name] for name in names], np.int64)


def _find_image_files(
    images: dict[int, dict[str, Any]], folder: Path, path: Path, findings: list[Finding]
) -> set[str]:
    """The names of the image files that exist; adds missing ones to the findings."""
    if not folder.is_dir():
        raise UserError(f"{folder}: image folder not found; {LAYOUT}")
    on_disk = {entry.name for entry in folder.iterdir()}  # one listing instead of a stat per image
    wanted = [entry["file_name"] for entry in images.values()]
    present = {n for n in wanted if n in on_disk or ("/" in n and (folder / n).is_file())}
    if images and not present:
        raise UserError(f"{folder}: has none of the {len(images)} images of {path.name}")
    findings += [
        Finding("missing image", str(folder / n), "no such file")
        for n in wanted
        if n not in present
    ]
    return present


def _parse_annotations(
    annotations: list[dict[str, Any]],
    images: dict[int, dict[str, Any]],
    category_ids: np.ndarray,
    path: Path,
) -> dict[str, np.ndarray]:
    """The annotations as columns; raises UserError for malformed ones and unknown ids."""
    label_of = {int(number): label for label, number in enumerate(category_ids)}
    rows = []
    for entry in annotations:
        try:
            number, image_id, category = entry["id"], entry["image_id"], entry["category_id"]
            box = tuple(float(value) for value in entry["bbox"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: an annotation without id, image_id, category_id or a bbox of 4 numbers: "
                f"{str(entry)[:100]}"
            ) from None
        if len(box) != 4:
            raise UserError(f"{path}: annotation {number}: bbox has {len(box)} numbers, not 4")
        if image_id not in images:
            raise UserError(f"{path}: annotation {number}: unknown image id {image_id}")
        if category not in label_of:
            raise UserError(f"{path}: annotation {number}: unknown category id {category}")
        rows.append((number, image_id, label_of[category], bool(entry.get("iscrowd", 0)), box))
    return {
        "id": np.array([row[0] for row in rows], np.int64),
        "image_id": np.array([row[1] for row in rows], np.int64),
        "label": np.array([row[2] for row in rows], np.int64),
        "crowd": np.array([row[3] for row in rows], bool),
        "box": np.array([row[4] for row in rows], np.float64).reshape(-1, 4),
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
