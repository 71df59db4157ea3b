"""The building blocks of the YOLOv4 family.

Every block registers its convolutions in the order in which darknet's weight files store them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.nn.activations import ActFactory
from detector.nn.batch_norm import BatchNormAct2d
from detector.nn.checkpointing import Checkpointable, checkpointed
from detector.nn.convolution import Conv2d
from detector.nn.weighted_sum import WeightedSum


@dataclass(frozen=True, slots=True)
class BatchNormSettings:
    """Arguments of BatchNorm besides the channel count.

    1e-4 and 0.03 are the published PyTorch values; darknet uses eps 1e-5, ScaledYOLOv4-large 1e-3.
    """

    eps: float = 1e-4
    momentum: float = 0.03


class ConvNormAct(Checkpointable):
    """Convolution without bias, BatchNorm, activation; [B, cin, H, W] -> [B, cout, H/stride, W/stride].

    Attributes:
        conv: k x k, with zero padding.
        norm: BatchNormAct2d, which fuses the activation if it can; Identity after `fuse_batch_norms`.
        act: the activation.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`padding` defaults to kernel // 2."""
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = BatchNormAct2d(cout, eps=norm.eps, momentum=norm.momentum)
        self.act = act(cout)

    @checkpointed
    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H', W']."""
        x = self.conv(x)
        if isinstance(self.norm, BatchNormAct2d):
            return self.norm(x, self.act)
        return self.act(self.norm(x))


class Residual(Checkpointable):
    """x + 3x3(1x1(x)), no activation after the sum; channels -> hidden -> channels."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`miwrc`: how the sum is weighted; see `WeightedSum`."""
        super().__init__()
        self.squeeze = ConvNormAct(channels, hidden, 1, act=act, norm=norm)
        self.expand = ConvNormAct(hidden, channels, 3, act=act, norm=norm)
        self.sum = WeightedSum(channels, miwrc)

    @checkpointed
    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> the same shape."""
        return self.sum(x, self.expand(self.squeeze(x)))


class CSPStage(Checkpointable):
    """A cross-stage-partial stage of the backbone: halves the resolution.

    3x3/2 downsampling; two 1x1 branches of `branch` channels, bypass and entry; residual units and a 1x1
    exit on the entry; 1x1 merge of concat[exit, bypass]. Source: Wang et al., "CSPNet", 2019,
    as in yolov4-csp.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        depth: int,
        *,
        branch: int | None = None,
        hidden: int | None = None,
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`branch` defaults to half of `cout`; `hidden`, the width inside the units, to `branch`.

        `miwrc`: how the sums of the units are weighted; see `WeightedSum`.
        """
        super().__init__()
        branch = branch or cout // 2
        self.down = ConvNormAct(cin, cout, 3, 2, act=act, norm=norm)
        self.bypass = ConvNormAct(cout, branch, 1, act=act, norm=norm)
        self.entry = ConvNormAct(cout, branch, 1, act=act, norm=norm)
        units = [
            Residual(branch, hidden or branch, miwrc=miwrc, act=act, norm=norm)
            for _ in range(depth)
        ]
        self.residuals = nn.Sequential(*units)
        self.exit = ConvNormAct(branch, branch, 1, act=act, norm=norm)
        self.merge = ConvNormAct(2 * branch, cout, 1, act=act, norm=norm)

    @checkpointed
    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/2, W/2]."""
        x = self.down(x)
        bypass = self.bypass(x)
        return self.merge(torch.cat([self.exit(self.residuals(self.entry(x))), bypass], 1))


def same_width_stack(
    channels: int, kernels: tuple[int, ...], *, act: ActFactory, norm: BatchNormSettings
) -> nn.Sequential:
    """A chain of convolutions of constant width, with these kernel sizes and no residual sums."""
    return nn.Sequential(
        *[ConvNormAct(channels, channels, kernel, act=act, norm=norm) for kernel in kernels]
    )


def conv_stack(
    cin: int, channels: int, kernels: tuple[int, ...], *, act: ActFactory, norm: BatchNormSettings
) -> nn.Sequential:
    """A chain of convolutions: each 1x1 narrows to `channels`, each 3x3 widens to twice that.

    [B, cin, H, W] -> [B, channels, H, W] if the last kernel is 1. Used in the necks of YOLOv3 and YOLOv4.
    """
    layers = []
    for kernel in kernels:
        cout = channels if kernel == 1 else 2 * channels
        layers.append(ConvNormAct(cin, cout, kernel, act=act, norm=norm))
        cin = cout
    return nn.Sequential(*layers)


class CSPBlock(Checkpointable):
    """The neck's CSP block; [B, cin, H, W] -> [B, channels, H, W].

    1x1 squeeze; a 1x1 bypass; `depth` pairs (1x1, 3x3) without residual sums; merge of
    concat[pairs, bypass].
    """

    def __init__(
        self, cin: int, channels: int, depth: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.bypass = ConvNormAct(channels, channels, 1, act=act, norm=norm)
        self.pairs = same_width_stack(channels, (1, 3) * depth, act=act, norm=norm)
        self.merge = ConvNormAct(2 * channels, channels, 1, act=act, norm=norm)

    @checkpointed
    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, channels, H, W]."""
        x = self.squeeze(x)
        return self.merge(torch.cat([self.pairs(x), self.bypass(x)], 1))


class SpatialPyramidPooling(nn.Module):
    """concat[13, 9, 5, identity]: max pools of these sizes, stride 1; [B, c, ..] -> [B, 4c, ..].

    The order is that of the weight files. A pool of 9 equals two chained pools of 5, one of 13 three:
    the values are the same at a third of the cost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, 4c, H, W]."""
        pool5 = self.pool(x)
        pool9 = self.pool(pool5)
        pool13 = self.pool(pool9)
        return torch.cat([pool13, pool9, pool5, x], 1)


class SPPBlock(Checkpointable):
    """Spatial pyramid pooling inside a CSP block, on the coarsest map; [B, cin, ..] -> [B, channels, ..].

    Source: He et al., "Spatial Pyramid Pooling", 2014, as in yolov4-csp.
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
        assert before[0] == after[0] == 1, "before and after must start with a 1x1 convolution"
        self.bypass = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.squeeze = ConvNormAct(cin, channels, 1, act=act, norm=norm)
        self.before = same_width_stack(channels, before[1:], act=act, norm=norm)
        self.pyramid = SpatialPyramidPooling()
        self.fuse = ConvNormAct(4 * channels, channels, 1, act=act, norm=norm)
        self.after = same_width_stack(channels, after[1:], act=act, norm=norm)
        self.merge = ConvNormAct(2 * channels, channels, 1, act=act, norm=norm)

    @checkpointed
    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, channels, H, W]."""
        p = self.before(self.squeeze(x))
        q = self.after(self.fuse(self.pyramid(p)))
        return self.merge(torch.cat([q, self.bypass(x)], 1))


class TinyStage(Checkpointable):
    """A stage of yolov4-tiny at constant resolution; [B, c, H, W] -> two maps.

    a = 3x3(x); first = 3x3(half of a's channels), second = 3x3(first); mix = 1x1(concat[second, first]).
    The stage's output is concat[a, mix]; `mix` alone goes to the neck. Which half depends on the weights:
    darknet takes the second, PyTorch_YOLOv4 the first.
    """

    def __init__(
        self, channels: int, *, first_half: bool, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        half = channels // 2
        self.first_half = first_half
        self.entry = ConvNormAct(channels, channels, 3, act=act, norm=norm)
        self.first = ConvNormAct(half, half, 3, act=act, norm=norm)
        self.second = ConvNormAct(half, half, 3, act=act, norm=norm)
        self.mix = ConvNormAct(channels, channels, 1, act=act, norm=norm)

    @checkpointed
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, c, H, W] -> concat[a, mix] [B, 2c, H, W] and mix [B, c, H, W]."""
        a = self.entry(x)
        half = a.chunk(2, 1)[0 if self.first_half else 1]
        first = self.first(half)
        mix = self.mix(torch.cat([self.second(first), first], 1))
        return torch.cat([a, mix], 1), mix
