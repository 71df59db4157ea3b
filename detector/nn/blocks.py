"""The few blocks of which the whole YOLOv4 family is made.

Every block registers its convolutions in the order in which darknet's weight files store them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.nn.activations import ActFactory


@dataclass(frozen=True, slots=True)
class BatchNormSettings:
    """What BatchNorm needs beside the channel count. 1e-4 and 0.03 are the published PyTorch values;
    darknet itself uses eps 1e-5, ScaledYOLOv4-large 1e-3.
    """

    eps: float = 1e-4
    momentum: float = 0.03


class ConvNormAct(nn.Module):
    """Convolution without bias, BatchNorm, activation; [B, cin, H, W] -> [B, cout, H/stride, W/stride].

    Attributes:
        conv: k x k, zero padding k // 2.
        norm: BatchNorm2d; its keys in a state dict do not depend on which kernel runs.
        act: the activation. One with a method `after_norm(norm, x)` (Mish) computes act(norm(x)) by
            itself, fused.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        *,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=norm.eps, momentum=norm.momentum)
        self.act = act(cout)
        self._after_norm = hasattr(self.act, "after_norm")

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H', W']."""
        x = self.conv(x)
        if self._after_norm:
            return self.act.after_norm(self.norm, x)  # pyright: ignore[reportCallIssue]
        return self.act(self.norm(x))


class Residual(nn.Module):
    """x + 3x3(1x1(x)), nothing after the sum; channels -> hidden -> channels."""

    def __init__(
        self, channels: int, hidden: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(channels, hidden, 1, act=act, norm=norm)
        self.expand = ConvNormAct(hidden, channels, 3, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> the same shape."""
        return x + self.expand(self.squeeze(x))


class CSPStage(nn.Module):
    """A cross-stage-partial stage of the backbone: halves the resolution.

    down 3x3/2; a bypass and an entry of half the width; residual units on the entry; an exit;
    1x1 merge of concat[exit, bypass]. Source: Wang et al., "CSPNet", 2019, as in yolov4-csp.
    """

    def __init__(
        self, cin: int, cout: int, depth: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        half = cout // 2
        self.down = ConvNormAct(cin, cout, 3, 2, act=act, norm=norm)
        self.bypass = ConvNormAct(cout, half, 1, act=act, norm=norm)
        self.entry = ConvNormAct(cout, half, 1, act=act, norm=norm)
        self.residuals = nn.Sequential(
            *[Residual(half, half, act=act, norm=norm) for _ in range(depth)]
        )
        self.exit = ConvNormAct(half, half, 1, act=act, norm=norm)
        self.merge = ConvNormAct(2 * half, cout, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/2, W/2]."""
        x = self.down(x)
        bypass = self.bypass(x)
        return self.merge(torch.cat([self.exit(self.residuals(self.entry(x))), bypass], 1))


def alternate(
    channels: int, kernels: tuple[int, ...], *, act: ActFactory, norm: BatchNormSettings
) -> nn.Sequential:
    """Convolutions of one width in a row, with these kernel sizes and no sums."""
    return nn.Sequential(
        *[ConvNormAct(channels, channels, kernel, act=act, norm=norm) for kernel in kernels]
    )


class CSPBlock(nn.Module):
    """The neck's block: 1x1 squeeze; a bypass; `depth` pairs (1x1, 3x3) without sums; merge of
    concat[pairs, bypass]. [B, cin, H, W] -> [B, channels, H, W].
    """

    def __init__(
        self, cin: int, channels: int, depth: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.bypass = ConvNormAct(channels, channels, 1, act=act, norm=norm)
        self.pairs = alternate(channels, (1, 3) * depth, act=act, norm=norm)
        self.merge = ConvNormAct(2 * channels, channels, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, channels, H, W]."""
        x = self.squeeze(x)
        return self.merge(torch.cat([self.pairs(x), self.bypass(x)], 1))


class SPPBlock(nn.Module):
    """Spatial pyramid pooling inside a CSP block, on the coarsest map; [B, cin, ..] -> [B, channels, ..].

    Max pools of 5, 9 and 13 pixels, stride 1. Concatenation order [13, 9, 5, identity], as the weight
    files have it. A pool of 9 is two of 5 in a row, one of 13 is three: computed so, the values are
    the same and the cost a third.
    """

    def __init__(
        self,
        cin: int,
        channels: int,
        *,
        before: tuple[int, ...],
        after: tuple[int, ...],
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """Kernel sizes `before` the pools (the first takes `cin`) and `after` (the first takes 4x)."""
        super().__init__()
        assert before[0] == after[0] == 1, "both rows start with a 1x1 convolution"
        self.bypass = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.squeeze = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.before = alternate(channels, before[1:], act=act, norm=norm)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.fuse = ConvNormAct(4 * channels, channels, 1, act=act, norm=norm)
        self.after = alternate(channels, after[1:], act=act, norm=norm)
        self.merge = ConvNormAct(2 * channels, channels, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, channels, H, W]."""
        p = self.before(self.squeeze(x))
        pool5 = self.pool(p)
        pool9 = self.pool(pool5)
        pool13 = self.pool(pool9)
        q = self.after(self.fuse(torch.cat([pool13, pool9, pool5, p], 1)))
        return self.merge(torch.cat([q, self.bypass(x)], 1))
