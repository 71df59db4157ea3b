"""Image classifiers: the interface, and a backbone that classifies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """The interface of every classifier: images [B, 3, H, W] in [0, 1] -> logits [B, classes].

    Attributes:
        orders: of darknet's weight files of this network; empty if there is no such format.
    """

    orders: tuple[str, ...] = ()

    def list_parts(self, order: str) -> Sequence[nn.Module]:
        """The parts in the order of darknet's weight files."""
        assert order in self.orders, f"unknown order {order}: this network has {self.orders}"
        return [self]


class BackboneClassifier(Classifier):
    """Backbone, global average pooling, a 1x1 convolution with bias."""

    def __init__(
        self, backbone: Any, *, num_classes: int, orders: tuple[str, ...] = ("darknet",)
    ) -> None:
        """`orders`: of darknet's weight files of this network."""
        super().__init__()
        self.orders = orders
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.out_channels[-1], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, classes]."""
        c5 = self.backbone(images)[-1]
        return torch.flatten(self.head(c5.mean((2, 3), keepdim=True)), 1)

    def list_parts(self, order: str) -> list[nn.Module]:
        """The parts in the order of darknet's weight files."""
        return [self.backbone, self.head]
