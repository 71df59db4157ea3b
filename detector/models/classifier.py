"""Image classifiers: the interface, and a backbone that classifies."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings


class Classifier(nn.Module):
    """The interface of every classifier: images [B, 3, H, W] in [0, 1] -> logits [B, classes].

    Attributes:
        loss: it is trained with unless the config says otherwise; in `CLASSIFIER_LOSSES`.
        orders: of darknet's weight files of this network; empty if there is no such format.
    """

    loss = "cross_entropy"
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


class PyramidClassifier(Classifier):
    """Backbone, the mean over its maps of each map's global average, a 1x1 convolution with bias.

    For maps of the same number of channels. It equals the global average of the sum of the maps at the
    finest scale, divided by their number, as long as each scale is a multiple of the next.
    """

    def __init__(
        self,
        backbone: Callable[..., Any],
        *,
        num_classes: int,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`backbone`: its constructor with every argument bound except `act` and `norm`."""
        super().__init__()
        self.backbone = backbone(act=act, norm=norm)
        self.head = nn.Conv2d(self.backbone.out_channels[-1], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, classes]."""
        means = [level.mean((2, 3), keepdim=True) for level in self.backbone(images)]
        return torch.flatten(self.head(torch.stack(means).mean(0)), 1)
