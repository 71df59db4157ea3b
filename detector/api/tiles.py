"""Detection in overlapping tiles, for small objects in large images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.structures import Detections

OVERLAP = 0.2  # of a tile's width and height
# A box that another one of its class covers by this much is the same object, cut by a seam.
COVERED = 0.6
SEAM = 2.0  # px; a box that ends so close to a tile's inner border is cut by it

Tile = tuple[int, int, int, int]  # x1, y1, x2, y2, pixels


def plan_tiles(height: int, width: int, size: int, overlap: float = OVERLAP) -> list[Tile]:
    """Tiles of `size` x `size` pixels (or the image's size, if smaller) that cover an image, row by row.

    Neighbours overlap by at least `overlap` of their size, so an object no larger than that is whole in
    one of them.

    Example:
        >>> plan_tiles(100, 180, 100)
        [(0, 0, 100, 100), (80, 0, 180, 100)]
    """
    columns = _plan_axis(width, size, overlap)
    return [(x1, y1, x2, y2) for y1, y2 in _plan_axis(height, size, overlap) for x1, x2 in columns]


def _plan_axis(length: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """Ranges of pixels: as few as the overlap allows, evenly spaced."""
    if length <= size:
        return [(0, length)]
    step = max(int(size * (1 - overlap)), 1)
    count = 1 + -(-(length - size) // step)
    starts = [round(n * (length - size) / (count - 1)) for n in range(count)]
    return [(start, start + size) for start in starts]


def merge_tiles(
    found: Sequence[Detections], tiles: Sequence[Tile], height: int, width: int
) -> Detections:
    """The detections of all tiles in pixels of the image, each object once, best first.

    Boxes that no seam cuts come before those that one cuts. A box is dropped if a box before it, of its
    class, covers most of it or is mostly covered by it.

    Args:
        found: of each tile, in pixels of the tile.
        tiles: where they are; the whole image may be among them.
        height, width: of the image, pixels.
    """
    boxes = torch.cat(
        [
            each.boxes_xyxy + each.boxes_xyxy.new_tensor([x, y, x, y])
            for each, (x, y, _, _) in zip(found, tiles, strict=True)
        ]
    )
    cut = torch.cat(
        [
            _find_cut(each.boxes_xyxy, tile, height, width)
            for each, tile in zip(found, tiles, strict=True)
        ]
    )
    scores = torch.cat([each.scores for each in found])
    labels = torch.cat([each.labels for each in found])
    order = (scores - 2.0 * cut).argsort(descending=True, stable=True)
    kept = order[_keep_uncovered(boxes[order], labels[order])]
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    return Detections(boxes[kept], scores[kept], labels[kept])


def _find_cut(boxes: Tensor, tile: Tile, height: int, width: int) -> Tensor:
    """Bool [n]: boxes [n, 4], in pixels of the tile, that end at a border of it inside the image."""
    x1, y1, x2, y2 = tile
    sides = [
        (boxes[:, 0] < SEAM, x1 > 0),
        (boxes[:, 1] < SEAM, y1 > 0),
        (boxes[:, 2] > x2 - x1 - SEAM, x2 < width),
        (boxes[:, 3] > y2 - y1 - SEAM, y2 < height),
    ]
    return torch.stack([near & inside for near, inside in sides]).any(0)


def _keep_uncovered(boxes: Tensor, labels: Tensor) -> Tensor:
    """Bool [n]: boxes that share little of the smaller one with each kept box before them."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    smaller = torch.minimum(areas[:, None], areas[None]).clamp(min=1e-9)
    same = (shared / smaller > COVERED) & (labels[:, None] == labels[None])  # [n, n]
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for number in range(len(boxes)):
        if kept[number]:
            kept[number + 1 :] &= ~same[number, number + 1 :]
    return kept
