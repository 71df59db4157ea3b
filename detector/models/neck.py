"""The necks: CSP-PANet (pacsp), PANet (yolov4), the top-down necks of YOLOv3 and yolov4-tiny.

Each neck maps the backbone's features, finest first, to the same number of maps, finest first.
`interleave_heads` gives the place of each head among the neck's parts in darknet's weight files.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from detector.nn import (
    ActFactory,
    BatchNormSettings,
    ConvNormAct,
    CSPBlock,
    SPPBlock,
    conv_stack,
)
from detector.nn.blocks import SpatialPyramidPooling

# input channels, output channels -> a block on two concatenated maps
Mixer = Callable[[int, int], nn.Module]


class Neck(nn.Module, ABC):
    """The interface of every neck.

    Attributes:
        out_channels: by level, finest first.
        drop: applied to the output of each block of the neck: the identity, or DropBlock.
    """

    out_channels: tuple[int, ...]

    def __init__(self, drop: nn.Module | None = None) -> None:
        super().__init__()
        self.drop = nn.Identity() if drop is None else drop

    @abstractmethod
    def interleave_heads(self, heads: Sequence[nn.Module]) -> list[nn.Module]:
        """Merges the neck's parts and the heads (finest first) in the order of darknet's cfg."""


class TopDown(nn.Module):
    """Narrows and upsamples a coarse map and concatenates it with the backbone's next finer map.

    concat[lateral, up], or [up, lateral] if not `lateral_first`; the lateral map is narrowed as well
    unless `narrow_lateral` is False.
    """

    def __init__(
        self,
        coarse: int,
        lateral: int,
        cout: int,
        mix: Mixer | None,
        *,
        narrow_lateral: bool = True,
        lateral_first: bool = True,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        super().__init__()
        self.lateral_first = lateral_first
        self.reduce = ConvNormAct(coarse, cout, 1, act=act, norm=norm)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral = (
            ConvNormAct(lateral, cout, 1, act=act, norm=norm) if narrow_lateral else nn.Identity()
        )
        concatenated = cout + (cout if narrow_lateral else lateral)
        self.block = mix(concatenated, cout) if mix else nn.Identity()
        self.out_channels = cout if mix else concatenated

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[B, coarse, H, W] and [B, lateral, 2H, 2W] -> [B, out_channels, 2H, 2W]."""
        up = self.upsample(self.reduce(coarse))
        lateral = self.lateral(fine)
        return self.block(torch.cat([lateral, up] if self.lateral_first else [up, lateral], 1))


class BottomUp(nn.Module):
    """Downsamples a fine map by a 3x3/2 convolution and concatenates it with a top-down map."""

    def __init__(self, fine: int, mix: Mixer, *, act: ActFactory, norm: BatchNormSettings) -> None:
        super().__init__()
        self.down = ConvNormAct(fine, 2 * fine, 3, 2, act=act, norm=norm)
        self.block = mix(4 * fine, 2 * fine)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[B, fine, 2H, 2W] and [B, 2 * fine, H, W] -> [B, 2 * fine, H, W]."""
        return self.block(torch.cat([self.down(fine), coarse], 1))


class PathAggregation(Neck):
    """Spatial pyramid pooling on C5, then top-down and bottom-up paths with the same kind of block.

    Source: Liu et al., "Path Aggregation Network", 2018.
    """

    def __init__(
        self,
        cin: Sequence[int],
        width: int,
        spp: nn.Module,
        mix: Mixer,
        *,
        act: ActFactory,
        norm: BatchNormSettings,
        drop: nn.Module | None = None,
    ) -> None:
        """`width`: channels at stride 32; half of it at 16 and a quarter at 8."""
        super().__init__(drop)
        c3, c4, _ = cin
        self.out_channels = (width // 4, width // 2, width)
        self.spp = spp
        self.top_down4 = TopDown(width, c4, width // 2, mix, act=act, norm=norm)
        self.top_down3 = TopDown(width // 2, c3, width // 4, mix, act=act, norm=norm)
        self.bottom_up4 = BottomUp(width // 4, mix, act=act, norm=norm)
        self.bottom_up5 = BottomUp(width // 2, mix, act=act, norm=norm)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4, C5 -> maps of width w/4, w/2, w at strides 8, 16, 32."""
        c3, c4, c5 = features
        n5 = self.drop(self.spp(c5))
        n4 = self.drop(self.top_down4(n5, c4))
        n3 = self.drop(self.top_down3(n4, c3))
        m4 = self.drop(self.bottom_up4(n3, n4))
        return n3, m4, self.drop(self.bottom_up5(m4, n5))

    def interleave_heads(self, heads: Sequence[nn.Module]) -> list[nn.Module]:
        """Finest head first, each directly after its map."""
        top = [self.spp, self.top_down4, self.top_down3, heads[0]]
        return [*top, self.bottom_up4, heads[1], self.bottom_up5, heads[2]]


class CSPPANet(PathAggregation):
    """The neck of the pacsp family: SPP inside a CSP block, and CSP blocks on both paths."""

    def __init__(
        self,
        cin: Sequence[int],
        *,
        width: int = 512,
        depth: int = 2,
        spp_before: tuple[int, ...] = (1, 3, 1),
        spp_after: tuple[int, ...] = (1, 3),
        act: ActFactory,
        norm: BatchNormSettings,
        drop: nn.Module | None = None,
    ) -> None:
        """`depth`: (1x1, 3x3) pairs in each block; `spp_*`: kernel sizes around the pools."""
        spp = SPPBlock(cin[-1], width, before=spp_before, after=spp_after, act=act, norm=norm)

        def mix(cin: int, channels: int) -> nn.Module:
            return CSPBlock(cin, channels, depth, act=act, norm=norm)

        super().__init__(cin, width, spp, mix, act=act, norm=norm, drop=drop)


class PANet(PathAggregation):
    """The neck of yolov4: SPP between two stacks of three convolutions; stacks of five on both paths."""

    def __init__(
        self,
        cin: Sequence[int],
        *,
        width: int = 512,
        act: ActFactory,
        norm: BatchNormSettings,
        drop: nn.Module | None = None,
    ) -> None:
        spp = nn.Sequential(
            conv_stack(cin[-1], width, (1, 3, 1), act=act, norm=norm),
            SpatialPyramidPooling(),
            conv_stack(4 * width, width, (1, 3, 1), act=act, norm=norm),
        )
        mix = partial(conv_stack, kernels=(1, 3, 1, 3, 1), act=act, norm=norm)
        super().__init__(cin, width, spp, mix, act=act, norm=norm, drop=drop)


class YOLOv3Neck(Neck):
    """Top-down only: conv stacks of five on C5, on C4 with upsampled C5, on C3 with upsampled C4.

    Source: Redmon and Farhadi, "YOLOv3", 2018.
    """

    def __init__(
        self,
        cin: Sequence[int],
        *,
        width: int = 512,
        act: ActFactory,
        norm: BatchNormSettings,
        drop: nn.Module | None = None,
    ) -> None:
        """`width`: channels at stride 32; half of it at 16 and a quarter at 8."""
        super().__init__(drop)
        c3, c4, c5 = cin
        self.out_channels = (width // 4, width // 2, width)
        mix = partial(conv_stack, kernels=(1, 3, 1, 3, 1), act=act, norm=norm)
        path = partial(
            TopDown, mix=mix, narrow_lateral=False, lateral_first=False, act=act, norm=norm
        )
        self.top5 = mix(c5, width)
        self.top_down4 = path(width, c4, width // 2)
        self.top_down3 = path(width // 2, c3, width // 4)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4, C5 -> maps of width w/4, w/2, w at strides 8, 16, 32."""
        c3, c4, c5 = features
        n5 = self.drop(self.top5(c5))
        n4 = self.drop(self.top_down4(n5, c4))
        return self.drop(self.top_down3(n4, c3)), n4, n5

    def interleave_heads(self, heads: Sequence[nn.Module]) -> list[nn.Module]:
        """Coarsest head first, each directly after its map."""
        return [self.top5, heads[2], self.top_down4, heads[1], self.top_down3, heads[0]]


class TinyNeck(Neck):
    """The neck of yolov4-tiny: a 1x1 convolution on C5, narrowed, upsampled and concatenated with C4."""

    def __init__(
        self,
        cin: Sequence[int],
        *,
        width: int = 256,
        act: ActFactory,
        norm: BatchNormSettings,
        drop: nn.Module | None = None,
    ) -> None:
        super().__init__(drop)
        c4, c5 = cin
        self.top5 = ConvNormAct(c5, width, 1, act=act, norm=norm)
        self.top_down4 = TopDown(
            width,
            c4,
            width // 2,
            None,
            narrow_lateral=False,
            lateral_first=False,
            act=act,
            norm=norm,
        )
        self.out_channels = (self.top_down4.out_channels, width)

    def forward(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """C4, C5 -> maps of width c4 + w/2 and w at strides 16, 32."""
        c4, c5 = features
        n5 = self.drop(self.top5(c5))
        return self.drop(self.top_down4(n5, c4)), n5

    def interleave_heads(self, heads: Sequence[nn.Module]) -> list[nn.Module]:
        """Coarsest head first, each directly after its map."""
        return [self.top5, heads[1], self.top_down4, heads[0]]
