"""The assembled detector: backbone, neck, head, and the anchors that its raw values refer to."""

import torch
from torch import Tensor, nn

from detector.decode import Decoder
from detector.models.head import YOLOHead
from detector.models.neck import Neck


class YOLO(nn.Module):
    """A detector of the family.

    Attributes:
        backbone, neck, head: the three parts.
        anchors: float32 [levels, anchors, 2], width and height in pixels.
        strides: pixels a cell, by level.
        decoder: how the raw values become boxes.
        orders: the orders in which darknet's weight files store this network; the first is the usual.
    """

    anchors: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: Neck,
        head: YOLOHead,
        *,
        anchors: tuple[tuple[tuple[float, float], ...], ...],
        strides: tuple[int, ...],
        decoder: Decoder | None = None,
        orders: tuple[str, ...] = ("darknet",),
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.orders = strides, orders
        self.decoder = decoder or Decoder()
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> raw values [B, anchors, H/s, W/s, 5 + classes], s = stride.

        `detector.decode` turns them into boxes; the loss takes them as they are.
        """
        return self.head(self.neck(self.backbone(images)))

    def stored(self, order: str) -> list[nn.Module]:
        """The parts in the order in which darknet's files of that order store them."""
        assert order in self.orders, f"this network has the orders {self.orders}"
        heads = list(self.head.levels)
        if order == "csp":
            return [self.backbone, self.neck, *heads]
        return [self.backbone, *self.neck.stored(heads)]
