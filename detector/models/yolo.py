"""The assembled detector: backbone, neck, head and anchors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.decode import Decoder, decode
from detector.models.head import YOLOHead
from detector.models.neck import Neck
from detector.structures import Candidates


class YOLO(nn.Module):
    """A detector of the family.

    Attributes:
        backbone, neck, head: the three parts.
        anchors: float32 [levels, anchors, 2], width and height in pixels.
        strides: pixels per cell, by level.
        decoder: how the raw values become boxes.
        orders: the orders in which darknet's weight files store this network, the usual one first.
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

        `detector.decode` converts them to boxes; the loss takes them raw.
        """
        return self.head(self.neck(self.backbone(images)))

    def find_candidates(self, raw: Sequence[Tensor], conf: float) -> Candidates:
        """Decodes the raw maps of `forward`: every (box, class) whose score is above `conf`."""
        return decode(raw, self.anchors, self.strides, self.decoder, conf=conf)

    def list_parts(self, order: str) -> list[nn.Module]:
        """The parts in the order of darknet's weight files, `order` one of `orders`."""
        assert order in self.orders, f"unknown order {order}: this network has {self.orders}"
        heads = list(self.head.levels)
        if order == "csp":
            return [self.backbone, self.neck, *heads]
        return [self.backbone, *self.neck.interleave_heads(heads)]
