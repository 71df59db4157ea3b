"""Raw maps -> candidates: boxes, scores, classes. Pure functions of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.structures import Candidates

LARGEST_EXPONENT = 20.0  # of an `exp` decoder: e^20 anchors are wider than any image, yet finite


@dataclass(frozen=True, slots=True)
class Decoder:
    """How raw values become boxes, which is a property of the weights.

    With s = sigmoid(raw) and a level's k: centre = (k * s - (k - 1) / 2 + cell) * stride, and
    size = (2s)^2 * anchor or exp(raw) * anchor.

    Three are in use: `sigmoid` with k = 2 (PyTorch's yolov4-csp family, darknet's `new_coords=1`), `exp`
    with darknet's `scale_x_y` as k, and plain `exp`, k = 1 (YOLOv3, and PyTorch's YOLOv4 of July 2020).

    Attributes:
        size: "sigmoid" or "exp".
        scale_x_y: k >= 1, one for all levels or one per level, finest first.
    """

    size: str = "sigmoid"
    scale_x_y: tuple[float, ...] = (2.0,)

    def __str__(self) -> str:
        scales = ", ".join(f"{value:g}" for value in dict.fromkeys(self.scale_x_y))
        return f"{'(2s)^2' if self.size == 'sigmoid' else 'exp'} with scale_x_y {scales}"

    def scale(self, level: int) -> float:
        """`scale_x_y` of a level, the k of the class's formulas."""
        return self.scale_x_y[level if len(self.scale_x_y) > 1 else 0]

    def reach(self, level: int) -> float:
        """How far a box centre can lie outside its cell on each side, in cells."""
        return (self.scale(level) - 1) / 2

    def decode_cells(
        self,
        level: int,
        values: Tensor,
        cells_xy: Tensor,
        anchors: Tensor,
        stride: Tensor | float,
    ) -> Tensor:
        """Decodes the boxes of given cells.

        Args:
            level: the level whose scale applies.
            values: raw (x, y, w, h), [..., 4].
            cells_xy: column and row of the cell, [..., 2], broadcast against `values`.
            anchors: width and height, [..., 2]; in pixels, or in any unit together with `stride`.
            stride: width of a cell in the same unit.

        Returns:
            boxes_cxcywh [..., 4], in the unit of `anchors` and `stride`.
        """
        k = self.scale(level)
        centre = (k * values[..., :2].sigmoid() - (k - 1) / 2 + cells_xy) * stride
        if self.size == "exp":
            size = values[..., 2:].clamp(max=LARGEST_EXPONENT).exp() * anchors
        else:
            size = (2 * values[..., 2:].sigmoid()) ** 2 * anchors
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
    raw: Sequence[Tensor],
    anchors: Tensor,
    strides: Sequence[int],
    decoder: Decoder | None = None,
    *,
    conf: float,
) -> Candidates:
    """Boxes and scores of a batch: every (box, class) whose score is above `conf`.

    A score is objectness times class probability, so cells whose objectness is not above `conf` need
    neither box nor classes: of a trained model's 25,200 at 640 px, nearly all.

    Args:
        raw: by level, [B, A, H, W, 5 + classes], the model's output; any float type.
        anchors: float32 [levels, A, 2], pixels.
        strides: pixels per cell, by level.
        decoder: that of the weights; (2s)^2 by default.
        conf: lowest score, exclusive. A box with several classes above it counts for each.

    Returns:
        Candidates, image by image, boxes in pixels of the network's input.
    """
    decoder = decoder or Decoder()
    levels = []
    for number, values in enumerate(raw):
        objectness = values[..., 4].float().sigmoid()  # [B, A, H, W]
        image, anchor, row, column = at = (objectness > conf).nonzero(as_tuple=True)
        likely = values[at].float()  # [k, 5 + classes]; fp16 rounds pixels above 512 to halves
        scores = objectness[at][:, None] * likely[:, 5:].sigmoid()  # [k, classes]
        pair, label = (scores > conf).nonzero(as_tuple=True)
        cells = torch.stack([column, row], -1)
        boxes = decoder.decode_cells(
            number, likely[:, :4], cells, anchors[number][anchor], strides[number]
        )
        half = boxes[:, 2:] / 2
        corners = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], -1)
        levels.append(Candidates(image[pair], corners[pair], scores[pair, label], label))
    return Candidates.join(levels)
