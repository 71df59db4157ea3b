"""A few images of a data set as a data set of their own: can a network learn these by heart?"""

import json
import shutil
from pathlib import Path

from detector.boxes import sides
from detector.data.coco import read_json
from detector.data.index import Index
from detector.errors import UserError


def choose(index: Index, *, count: int, min_boxes: int, min_side: float, size: int) -> list[int]:
    """The first images that are neither too easy nor hopeless.

    Args:
        index: of the whole split.
        count: images wanted.
        min_boxes: boxes an image has at least.
        min_side: pixels of the shorter side of every box, once the image's long side is `size`.
        size: of the training images, pixels.

    Returns:
        Numbers of images, without crowds.

    Raises:
        UserError: there are not enough of them.
    """
    chosen = []
    for number in range(len(index)):
        rows = slice(index.starts[number], index.starts[number + 1])
        scaled = sides(index.boxes_xyxy[rows]) * size / index.sizes[number].max()
        enough = len(scaled) >= min_boxes and (scaled >= min_side).all()
        if enough and not index.crowd[rows].any():
            chosen.append(number)
        if len(chosen) == count:
            return chosen
    raise UserError(
        f"{index.annotations}: only {len(chosen)} images have {min_boxes} boxes or more, all at "
        f"least {min_side} px at {size} px, and no crowds; {count} were asked for"
    )


def write_subset(
    index: Index, folder: Path, *, count: int, min_boxes: int, min_side: float, size: int
) -> Path:
    """Writes a COCO folder in which both splits are the same few images of `index`.

    Args:
        index: where the images come from.
        folder: of the new data set; must not exist.
        count, min_boxes, min_side, size: see `choose`.

    Returns:
        The new data YAML, `folder`/data.yaml.

    Raises:
        UserError: the folder exists, or there are not enough images.
    """
    tree = read_json(index.annotations)
    by_id = {entry["id"]: entry for entry in tree["images"]}
    entries = [by_id[int(image_id)] for image_id in index.image_ids]
    chosen = choose(index, count=count, min_boxes=min_boxes, min_side=min_side, size=size)
    ids = {entries[number]["id"] for number in chosen}
    few = {
        "images": [entries[number] for number in chosen],
        "annotations": [a for a in tree["annotations"] if a["image_id"] in ids],
        "categories": tree["categories"],
    }
    if folder.exists():
        raise UserError(f"{folder}: exists already; give another --out")
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"{split}2017").mkdir()
        for number in chosen:
            name = str(index.files[number])
            target = folder / f"{split}2017" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(index.folder / name, target)
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(few))
    yaml = folder / "data.yaml"
    yaml.write_text("# a few images, the same for training and validation\nformat: coco\nroot: .\n")
    return yaml
