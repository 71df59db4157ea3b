"""Writes a few images of a data set as a new one, to test whether a network can overfit them."""

from pathlib import Path

from detector.boxes import box_sizes
from detector.data.store.index import Index
from detector.data.writers.convert import write_coco
from detector.errors import UserError


def select_images(
    index: Index, *, count: int, min_boxes: int, min_side: float, size: int
) -> list[int]:
    """Selects the first images that are neither too easy nor too hard.

    Args:
        index: of the whole split.
        count: images wanted.
        min_boxes: minimum number of boxes per image.
        min_side: minimum width and height of every box, pixels, once the image's longer side is `size`.
        size: of the training images, pixels.

    Returns:
        Numbers of images, without crowds.

    Raises:
        UserError: there are not enough such images.
    """
    chosen = []
    for number in range(len(index)):
        rows = slice(index.starts[number], index.starts[number + 1])
        scaled = box_sizes(index.boxes_xyxy[rows]) * size / index.sizes[number].max()
        enough = len(scaled) >= min_boxes and (scaled >= min_side).all()
        if enough and not index.crowd[rows].any():
            chosen.append(number)
        if len(chosen) == count:
            return chosen
    raise UserError(
        f"{index.annotations}: only {len(chosen)} images have {min_boxes} boxes or more, all at "
        f"least {min_side} px at {size} px, and no crowds; {count} are needed"
    )


def write_subset(
    index: Index, folder: Path, *, count: int, min_boxes: int, min_side: float, size: int
) -> Path:
    """Writes a COCO folder in which both splits are the same few images of `index`.

    Args:
        index: where the images come from.
        folder: of the new data set; must not exist.
        count, min_boxes, min_side, size: see `select_images`.

    Returns:
        The new data YAML, `folder`/data.yaml.

    Raises:
        UserError: the folder exists, or there are not enough images.
    """
    chosen = select_images(index, count=count, min_boxes=min_boxes, min_side=min_side, size=size)
    if folder.exists():
        raise UserError(f"{folder}: exists already; give another --out")
    for split in ("train", "val"):
        write_coco(index, folder, split, numbers=chosen)
    yaml = folder / "data.yaml"
    yaml.write_text("# a few images, the same for training and validation\nformat: coco\nroot: .\n")
    return yaml
