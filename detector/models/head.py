"""The YOLO head: one 3x3 convolution and one 1x1 convolution with bias on each map."""

import math

import torch
from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct


class YOLOHead(nn.Module):
    """Raw maps: for each level, anchor and cell the values (x, y, w, h, objectness, classes).

    Channels are anchor-major: channel = anchor * (5 + classes) + value.
    """

    def __init__(
        self,
        cin: tuple[int, ...],
        *,
        num_classes: int,
        num_anchors: int,
        strides: tuple[int, ...],
        act: ActFactory,
        norm: BatchNormSettings | None = None,
    ) -> None:
        super().__init__()
        norm = norm or BatchNormSettings()
        self.num_anchors, self.num_values = num_anchors, 5 + num_classes
        cout = num_anchors * self.num_values
        self.levels = nn.ModuleList(
            nn.Sequential(ConvNormAct(c, 2 * c, 3, act=act, norm=norm), nn.Conv2d(2 * c, cout, 1))
            for c in cin
        )
        self._bias_to_priors(strides)

    @torch.no_grad()
    def _bias_to_priors(self, strides: tuple[int, ...]) -> None:
        """Start from rare objects: 8 in a 640 px image, spread over the cells, and even classes.

        On top of torch's own initialisation, as the published recipe has it.
        """
        classes = self.num_values - 5
        outputs = [module for module in self.modules() if isinstance(module, nn.Conv2d)][1::2]
        for output, stride in zip(outputs, strides, strict=True):
            assert output.bias is not None
            bias = output.bias.view(self.num_anchors, self.num_values)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (classes - 0.99))

    def forward(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        """Maps [B, c, H, W] by level -> raw values [B, anchors, H, W, 5 + classes] by level."""
        raw = []
        for level, x in zip(self.levels, features, strict=True):
            y = level(x)
            y = y.unflatten(1, (self.num_anchors, self.num_values))  # [B, A, V, H, W]
            raw.append(y.permute(0, 1, 3, 4, 2))
        return raw
