"""The YOLO head: one 3x3 convolution and one 1x1 convolution with bias on each map."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct


@torch.no_grad()
def init_output_bias(output: nn.Conv2d, num_anchors: int, stride: int) -> None:
    """Initialises an output's biases to expect 8 objects per 640 px image and equally frequent classes.

    They are added to torch's own initialisation, as in the published recipe.
    """
    assert output.bias is not None
    bias = output.bias.view(num_anchors, -1)  # [A, 5 + classes]
    bias[:, 4] += math.log(8 / (640 / stride) ** 2)
    bias[:, 5:] += math.log(0.6 / (bias.shape[1] - 5 - 0.99))


def split_anchors(maps: Tensor, num_anchors: int) -> Tensor:
    """Splits the channels by anchor: [B, A * V, H, W], anchor-major -> [B, A, H, W, V]."""
    return maps.unflatten(1, (num_anchors, -1)).permute(0, 1, 3, 4, 2)


class YOLOHead(nn.Module):
    """Predicts raw maps: for each level, anchor and cell (x, y, w, h, objectness, classes).

    Channels are anchor-major: channel = anchor * (5 + classes) + value.
    """

    def __init__(
        self,
        cin: Sequence[int],
        *,
        hidden: Sequence[int] | None = None,
        num_classes: int,
        num_anchors: int,
        strides: Sequence[int],
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`hidden`: channels of the 3x3 convolution by level; twice `cin` by default."""
        super().__init__()
        hidden = hidden or [2 * c for c in cin]
        self.num_anchors = num_anchors
        cout = num_anchors * (5 + num_classes)
        self.levels = nn.ModuleList(
            nn.Sequential(ConvNormAct(c, h, 3, act=act, norm=norm), nn.Conv2d(h, cout, 1))
            for c, h in zip(cin, hidden, strict=True)
        )
        for level, stride in zip(self.levels, strides, strict=True):
            init_output_bias(level[1], num_anchors, stride)  # pyright: ignore

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, c, H, W] by level -> raw values [B, anchors, H, W, 5 + classes] by level."""
        return [
            split_anchors(level(x), self.num_anchors)
            for level, x in zip(self.levels, features, strict=True)
        ]
