"""Slow, obvious reference implementations of `decode` and `suppress`, over all boxes of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detector.decode import Decoder
from detector.structures import Candidates


def decode_all(
    raw: Sequence[Tensor], anchors: Tensor, strides: Sequence[int], decoder: Decoder
) -> tuple[Tensor, Tensor, Tensor]:
    """All boxes of all levels, in the order level, anchor, row, column.

    Returns:
        boxes_cxcywh float32 [B, N, 4] in pixels, objectness [B, N], class probabilities [B, N, classes].
    """
    boxes, objectness, classes = [], [], []
    for number, values in enumerate(raw):
        values = values.float()
        rows, columns = (torch.arange(n, dtype=torch.float32) for n in values.shape[2:4])
        cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # [H, W, 2]
        sizes = anchors[number][:, None, None]
        level = decoder.decode_cells(number, values[..., :4], cells, sizes, strides[number])
        boxes.append(level.flatten(1, 3))
        objectness.append(values[..., 4].sigmoid().flatten(1))
        classes.append(values[..., 5:].sigmoid().flatten(1, 3))
    return torch.cat(boxes, 1), torch.cat(objectness, 1), torch.cat(classes, 1)


def candidates_of(
    boxes_cxcywh: Tensor, objectness: Tensor, classes: Tensor, conf: float
) -> Candidates:
    """Every (box, class) whose objectness times class probability exceeds `conf`."""
    image, box = (objectness > conf).nonzero(as_tuple=True)
    scores = objectness[image, box, None] * classes[image, box]  # [k, C]
    pair, label = (scores > conf).nonzero(as_tuple=True)
    image, box, score = image[pair], box[pair], scores[pair, label]
    return Candidates(image, box_convert(boxes_cxcywh[image, box], "cxcywh", "xyxy"), score, label)
