"""COCO's folder layout -> a flat index of images and boxes.

ROOT/annotations/instances_train2017.json   instances_val2017.json
ROOT/train2017/*.jpg                        ROOT/val2017/*.jpg
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.boxes import sides
from detector.data.index import CUT_LIMIT, Finding, Index
from detector.errors import UserError

LAYOUT = (
    "expected ROOT/annotations/instances_train2017.json and instances_val2017.json, "
    "ROOT/train2017/*.jpg and ROOT/val2017/*.jpg"
)


def read_json(path: Path) -> dict[str, Any]:
    """A COCO annotation file.

    Raises:
        UserError: missing, not json, or without the three lists that make it COCO's.
    """
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable json file ({error})") from None
    keys = ("images", "annotations", "categories")
    missing = [
        key for key in keys if not isinstance(tree, dict) or not isinstance(tree.get(key), list)
    ]
    if missing:
        raise UserError(
            f"{path}: not a COCO annotation file: it has no list {', '.join(map(repr, missing))}"
        )
    return tree


def read_coco(folder: Path, annotations: Path, names: tuple[str, ...] | None) -> Index:
    """The index of one split.

    Labels follow the order of the json's category ids, or of `names` where the data YAML gives them
    (the json then has to know each). Images without objects stay. Boxes are cut at the image's
    borders; boxes without size or wholly outside, and images whose file is missing, are left out and
    named in `findings`.

    Raises:
        UserError: not COCO's format, an unknown category or image id, an id that occurs twice, or no
            image file at all.
    """
    tree = read_json(annotations)
    categories = _unique(tree["categories"], annotations, "category")
    images = _unique(tree["images"], annotations, "image")
    names, category_ids = _label_order(categories, names, annotations)
    findings: list[Finding] = []
    present = _present(images, folder, annotations, findings)
    kept = [image_id for image_id in images if images[image_id]["file_name"] in present]
    columns = _columns(tree["annotations"], images, category_ids, annotations)
    order, starts = _group_by_image(columns["image_id"], np.array(kept, np.int64))
    boxes, crowd, labels = (columns[key][order] for key in ("box", "crowd", "label"))
    owner = np.repeat(np.arange(len(kept)), np.diff(starts))

    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    sizes = np.array([[images[i]["height"], images[i]["width"]] for i in kept], np.int64)
    sizes = sizes.reshape(-1, 2)
    limits = sizes[owner, ::-1].astype(np.float64)
    clipped = np.clip(corners, 0, np.concatenate([limits, limits], 1))
    with np.errstate(invalid="ignore"):
        finite = np.asarray(np.isfinite(boxes).all(axis=1))
        good = np.asarray(finite & (sides(clipped) > 0).all(axis=1))
    for at in (~good).nonzero()[0]:
        flat = not (boxes[at, 2:] > 0).all()
        kind = "not finite" if not finite[at] else "flat box" if flat else "box outside"
        where = f"{annotations.name}: annotation {columns['id'][order[at]]}"
        box = f"box {boxes[at].tolist()} has no size inside its image"
        findings.append(Finding(kind, where, box))
    counts = np.bincount(owner[good], minlength=len(kept))
    return Index(
        folder=folder,
        files=np.array([images[i]["file_name"] for i in kept], dtype=np.str_),
        image_ids=np.array(kept, np.int64),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xyxy=clipped[good].astype(np.float32),
        labels=labels[good],
        crowd=crowd[good],
        names=names,
        category_ids=category_ids,
        annotations=annotations,
        findings=tuple(findings),
        cut=np.asarray((np.abs(corners - clipped) > CUT_LIMIT).any(axis=1))[good],
    )


def _unique(entries: list[dict[str, Any]], path: Path, kind: str) -> dict[int, dict[str, Any]]:
    """Entries by id, in the file's order."""
    needed = {"category": ("id", "name"), "image": ("id", "file_name", "width", "height")}[kind]
    for entry in entries:
        for key in needed:
            if not isinstance(entry, dict) or key not in entry:
                raise UserError(f"{path}: a {kind} without {key!r}: {str(entry)[:80]}")
    counts = Counter(entry["id"] for entry in entries)
    twice = [number for number, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{path}: {kind} id {twice[0]} occurs {counts[twice[0]]} times")
    return {entry["id"]: entry for entry in entries}


def _label_order(
    categories: dict[int, dict[str, Any]], names: tuple[str, ...] | None, path: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    if not categories:
        raise UserError(f"{path}: it lists no categories")
    if names is None:
        ids = sorted(categories)
        return tuple(categories[i]["name"] for i in ids), np.array(ids, np.int64)
    by_name = {entry["name"]: i for i, entry in categories.items()}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f"{path}: no category {unknown[0]!r}, which the data YAML's names ask for "
            f"(it has: {', '.join(by_name)})"
        )
    return names, np.array([by_name[name] for name in names], np.int64)


def _present(
    images: dict[int, dict[str, Any]], folder: Path, path: Path, findings: list[Finding]
) -> set[str]:
    """The image files that exist; the missing ones are added to the findings."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images; {LAYOUT}")
    on_disk = {entry.name for entry in folder.iterdir()}  # one listing, not one stat an image
    wanted = [entry["file_name"] for entry in images.values()]
    present = {n for n in wanted if n in on_disk or ("/" in n and (folder / n).is_file())}
    if images and not present:
        raise UserError(f"{folder}: none of the {len(images)} images of {path.name} is there")
    findings += [
        Finding("missing image", str(folder / n), "no such file")
        for n in wanted
        if n not in present
    ]
    return present


def _columns(
    annotations: list[dict[str, Any]],
    images: dict[int, dict[str, Any]],
    category_ids: np.ndarray,
    path: Path,
) -> dict[str, np.ndarray]:
    """The annotations as columns, ids checked."""
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
    """Rows sorted by image in the order of `image_ids` (others dropped), and the start of each."""
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
