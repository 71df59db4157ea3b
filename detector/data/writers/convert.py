"""Writes an index as COCO json in COCO's folders, or as YOLO txt.

`coco_tree` makes the COCO json of any index, for COCO's own evaluation, too.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from detector.boxes import box_sizes, coco_annotations
from detector.data.readers.coco import read_json
from detector.data.store.index import Index
from detector.errors import UserError

CopyImage = Callable[[Path, Path], object]  # (source, target): shutil.copyfile or `link`


def coco_tree(index: Index) -> dict[str, Any]:
    """Makes the COCO json of a split.

    If the split was read from a json, returns its content, areas and segmentations included. Otherwise
    converts the index: ids start at 1, areas are those of boxes, `difficult` objects become crowds.

    Returns:
        {"images": [...], "annotations": [...], "categories": [...]}.
    """
    if index.annotations.suffix == ".json":
        return read_json(index.annotations, labelled=False).as_dict()
    wh = box_sizes(index.boxes_xyxy)
    boxes = np.concatenate([index.boxes_xyxy[:, :2], wh], 1).astype(np.float64)
    ids = index.category_ids
    images = zip(index.image_ids.tolist(), index.files, index.sizes.tolist(), strict=True)
    return {
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, name, (height, width) in images
        ],
        "annotations": coco_annotations(
            np.repeat(index.image_ids, np.diff(index.starts)),
            ids[index.labels],
            boxes,
            boxes[:, 2:].prod(axis=1),
            index.crowd,
        ),
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(ids.tolist(), index.names, strict=True)
        ],
    }


def make_flat_names(index: Index, numbers: Sequence[int]) -> list[str]:
    """File names without folders; duplicates get the image's id appended.

    Names that differ only in their suffix (whose labels would share a file) or in upper and lower case
    (which some file systems ignore) are duplicates, too.
    """
    taken: set[str] = set()
    names = []
    for number in numbers:
        path = Path(index.files[number])
        name = path.stem
        while name.lower() in taken:
            name = f"{name}_{index.image_ids[number]}"
        taken.add(name.lower())
        names.append(f"{name}{path.suffix}")
    return names


def link(source: Path, target: Path) -> None:
    """Links `target` to the image."""
    target.symlink_to(source.resolve())


def write_coco(
    index: Index,
    folder: Path,
    split: str,
    *,
    copy: CopyImage = shutil.copyfile,
    numbers: Sequence[int] | None = None,
) -> None:
    """Writes a split in COCO's layout: `folder`/annotations/instances_SPLIT2017.json and its images.

    Args:
        index: the split.
        folder: of the new data set.
        split: train, val or test.
        copy: copies or links an image to its new path.
        numbers: the images to write; default: all.
    """
    numbers = range(len(index)) if numbers is None else numbers
    tree = coco_tree(index)
    by_id = {entry["id"]: entry for entry in tree["images"]}
    names = make_flat_names(index, numbers)
    ids = [int(index.image_ids[number]) for number in numbers]
    kept, categories = set(ids), set(index.category_ids.tolist())
    sizes = [dict(zip(("height", "width"), index.sizes[i].tolist(), strict=True)) for i in numbers]
    tree["images"] = [
        {**by_id[image], **size, "file_name": name}
        for image, size, name in zip(ids, sizes, names, strict=True)
    ]
    tree["annotations"] = [
        entry
        for entry in tree["annotations"]
        if entry["image_id"] in kept and entry["category_id"] in categories
    ]
    tree["categories"] = [entry for entry in tree["categories"] if entry["id"] in categories]
    _copy_images(index, numbers, names, folder / f"{split}2017", copy)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(tree))


def write_yolo(index: Index, folder: Path, split: str, *, copy: CopyImage = shutil.copyfile) -> int:
    """Writes a split as YOLO txt: `folder`/images/SPLIT and `folder`/labels/SPLIT.

    Args:
        index, folder, split, copy: as in `write_coco`.

    Returns:
        The number of crowd boxes, which YOLO's txt cannot represent and which are skipped.
    """
    numbers = range(len(index))
    names = make_flat_names(index, numbers)
    _copy_images(index, numbers, names, folder / "images" / split, copy)
    labels = folder / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for number, name in zip(numbers, names, strict=True):
        rows = slice(index.starts[number], index.starts[number + 1])
        height, width = index.sizes[number]
        real = ~index.crowd[rows]
        boxes = index.boxes_xyxy[rows][real].astype(np.float64) / np.tile([width, height], 2)
        centres, wh = (boxes[:, :2] + boxes[:, 2:]) / 2, box_sizes(boxes)
        lines = [
            f"{label} {x:.9g} {y:.9g} {w:.9g} {h:.9g}\n"
            for label, (x, y), (w, h) in zip(
                index.labels[rows][real].tolist(), centres.tolist(), wh.tolist(), strict=True
            )
        ]
        (labels / Path(name).with_suffix(".txt").name).write_text("".join(lines))
    return int(index.crowd.sum())


def write_yaml(
    path: Path, form: str, index: Index, splits: Sequence[str], *, mirrors: bool
) -> None:
    """Writes the data YAML of a converted data set; for YOLO, one that other toolkits can read."""
    head: dict[str, Any] = {"format": form, "root": "."}
    if form == "yolo":
        head = {"path": ".", **{split: f"images/{split}" for split in splits}}
    names = list(index.names) if form == "coco" else dict(enumerate(index.names))
    values = {**head, "names": names, **({} if mirrors else {"mirrors": False})}
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _copy_images(
    index: Index, numbers: Sequence[int], names: Sequence[str], folder: Path, copy: CopyImage
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = zip(numbers, names, strict=True)
    for number, name in tqdm(pairs, folder.name, len(names), leave=False, disable=None):
        if index.pixels is not None:
            _write_png(folder / name, index.pixels[number])
            continue
        source = index.folder / index.files[number]
        if not source.is_file():
            raise UserError(f"{source}: the image was removed after the data set was read")
        copy(source, folder / name)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W, 3], RGB, or [H, W]."""
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
