"""Target assignment: ground-truth boxes -> the (level, anchor, cell) triples that predict them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert


@dataclass(frozen=True, slots=True)
class Matches:
    """The m matches of one level. A box may have several.

    Attributes:
        image, anchor, row, column: int64 [m], indices into the level's raw map.
        box: int64 [m], index of the ground-truth box.
        boxes_cxcywh: float32 [m, 4], that box in units of the level's cells.
        quality: float32 [m] in [0, 1], the weight of the match in the losses of boxes and classes, and
            its objectness target. None: each match weighs 1, and the loss computes the target.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    boxes_cxcywh: Tensor
    quality: Tensor | None = None

    def select(self, keep: Tensor, quality: Tensor | None) -> "Matches":
        """The matches of a bool mask [m], with the quality of all m or None."""
        return Matches(
            self.image[keep],
            self.anchor[keep],
            self.row[keep],
            self.column[keep],
            self.box[keep],
            self.boxes_cxcywh[keep],
            None if quality is None else quality[keep],
        )


def move_matches(levels: Sequence[Matches], device: torch.device) -> list[Matches]:
    """The same matches on a device, all levels in two copies that a GPU does not wait for."""
    sizes = [len(level.box) for level in levels]
    rows = [
        torch.stack([level.image, level.anchor, level.row, level.column, level.box])
        for level in levels
    ]
    indices, boxes = torch.cat(rows, 1), torch.cat([level.boxes_cxcywh for level in levels])
    if device.type == "cuda":
        indices, boxes = indices.pin_memory(), boxes.pin_memory()
    indices = indices.to(device, non_blocking=True)  # [5, matches of all levels]
    boxes = boxes.to(device, non_blocking=True)
    return [
        Matches(*columns.unbind(), boxes_cxcywh=cells)
        for columns, cells in zip(indices.split(sizes, 1), boxes.split(sizes), strict=True)
    ]


def assign(
    boxes_xyxy: Tensor,
    image_index: Tensor,
    anchors: Tensor,
    strides: Sequence[int],
    shapes: Sequence[tuple[int, int]],
    anchor_ratio: float,
    reach: Sequence[float],
) -> list[Matches]:
    """Assigns ground-truth boxes to anchors and cells, level by level.

    A box matches every anchor, on any level, whose width and height differ from its own by a factor below
    `anchor_ratio`, and there up to three cells: the cell of its centre, the left or right neighbour if
    the centre is within `reach` of it, and the upper or lower one likewise. Neighbours outside the grid
    are skipped. Source: the yolov4-csp recipe; the tests have a slow reference implementation.

    Args:
        boxes_xyxy: float32 [n, 4], pixels.
        image_index: int64 [n].
        anchors: float32 [levels, A, 2], pixels.
        strides: pixels per cell, by level.
        shapes: (rows, columns) of the raw map, by level.
        anchor_ratio: > 1; 4 in the recipe, the largest size that the (2s)^2 decoder reaches.
        reach: by level, how far, in cells, the decoder can move a centre out of its cell; 0.5 in the
            recipe; with 0 only the cell of the centre matches.

    Returns:
        The matches of each level.
    """
    return [
        _assign_level(boxes_xyxy, image_index, level_anchors, stride, shape, anchor_ratio, r)
        for level_anchors, stride, shape, r in zip(anchors, strides, shapes, reach, strict=True)
    ]


def _assign_level(
    boxes_xyxy: Tensor,
    image_index: Tensor,
    anchors: Tensor,
    stride: int,
    shape: tuple[int, int],
    anchor_ratio: float,
    reach: float,
) -> Matches:
    rows, columns = shape
    boxes = box_convert(boxes_xyxy, "xyxy", "cxcywh") / stride
    ratio = boxes[None, :, 2:] / (anchors / stride)[:, None]  # [A, n, 2]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < anchor_ratio  # [A, n]
    anchor, box = fits.nonzero(as_tuple=True)
    centre = boxes[box, :2]

    limit = centre.new_tensor([columns, rows])
    part = centre % 1
    before = (part < reach) & (centre > 1)  # [m, 2]: left, up
    after = (part > 1 - reach) & (centre < limit - 1)  # [m, 2]: right, down
    own = torch.ones_like(before[:, :1])
    wanted = torch.cat([own, before, after], 1).T  # [5, m]: own, left, up, right, down
    shifts = centre.new_tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])
    direction, match = wanted.nonzero(as_tuple=True)

    cell = (centre[match].floor() + shifts[direction]).long()
    column = cell[:, 0].clamp(0, columns - 1)  # a centre on the far edge of the image
    row = cell[:, 1].clamp(0, rows - 1)
    box = box[match]
    return Matches(image_index[box], anchor[match], row, column, box, boxes[box])
