"""Raw maps -> boxes and scores. Pure functions of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def decode_cells(
    values: Tensor, cells_xy: Tensor, anchors: Tensor, stride: Tensor | float
) -> Tensor:
    """Boxes of single cells: centre (2s - 0.5 + cell) * stride, size (2s)^2 * anchor, s = sigmoid.

    A centre can leave its cell by half a cell on each side and a box can be four times its anchor,
    so that up to three cells can learn one object. Source: the yolov4-csp decoder, darknet's
    `new_coords=1` with `scale_x_y=2`.

    Args:
        values: raw (x, y, w, h), [..., 4].
        cells_xy: column and row of the cell, [..., 2], broadcast against `values`.
        anchors: width and height, [..., 2]; in pixels, or in any unit together with `stride`.
        stride: the cell's side in the same unit.

    Returns:
        boxes_cxcywh [..., 4], in the unit of `anchors` and `stride`.
    """
    s = values.sigmoid()
    centre = (2 * s[..., :2] - 0.5 + cells_xy) * stride
    size = (2 * s[..., 2:]) ** 2 * anchors
    return torch.cat([centre, size], -1)


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """Column and row of every cell, float32 [height, width, 2]."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([columns, rows], -1)


def decode(
    raw: Sequence[Tensor], anchors: Tensor, strides: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """All boxes of all levels.

    Args:
        raw: by level, [B, A, H, W, 5 + classes], the model's output; any float type.
        anchors: float32 [levels, A, 2], pixels.
        strides: pixels a cell, by level.

    Returns:
        boxes_cxcywh float32 [B, N, 4] in pixels, N = sum of A * H * W, level by level, within a level
        anchor-major (a, y, x); objectness [B, N] and class probabilities [B, N, classes] in [0, 1].
        The score of a class is their product.
    """
    boxes, objectness, classes = [], [], []
    for values, level_anchors, stride in zip(raw, anchors, strides, strict=True):
        values = values.float()  # fp16 rounds coordinates above 512 px to half a pixel
        cells = grid(values.shape[2], values.shape[3], values.device)
        level = decode_cells(values[..., :4], cells, level_anchors[:, None, None], stride)
        boxes.append(level.flatten(1, 3))
        objectness.append(values[..., 4].sigmoid().flatten(1))
        classes.append(values[..., 5:].sigmoid().flatten(1, 3))
    return torch.cat(boxes, 1), torch.cat(objectness, 1), torch.cat(classes, 1)
