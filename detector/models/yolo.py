"""The assembled detector: backbone, neck, head, and the anchors that its raw values refer to."""

import torch
from torch import Tensor, nn


class YOLO(nn.Module):
    """A detector of the family.

    Attributes:
        backbone, neck, head: the three parts.
        anchors: float32 [levels, anchors, 2], width and height in pixels.
        strides: pixels a cell, by level.
    """

    anchors: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        *,
        anchors: tuple[tuple[tuple[float, float], ...], ...],
        strides: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides = strides
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> raw values [B, anchors, H/s, W/s, 5 + classes], s = stride.

        `detector.decode` turns them into boxes; the loss takes them as they are.
        """
        return self.head(self.neck(self.backbone(images)))
