"""SPP and CSP-PANet: mixes the three maps of the backbone, top-down and then bottom-up."""

import torch
from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct, CSPBlock, SPPBlock


class TopDown(nn.Module):
    """A coarse map, halved in width and upsampled, joined with the backbone's next finer map."""

    def __init__(
        self, coarse: int, lateral: int, depth: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        half = coarse // 2
        self.reduce = ConvNormAct(coarse, half, 1, act=act, norm=norm)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral = ConvNormAct(lateral, half, 1, act=act, norm=norm)
        self.block = CSPBlock(2 * half, half, depth, act=act, norm=norm)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[B, coarse, H, W] and [B, lateral, 2H, 2W] -> [B, coarse/2, 2H, 2W]."""
        up = self.upsample(self.reduce(coarse))
        return self.block(torch.cat([self.lateral(fine), up], 1))


class BottomUp(nn.Module):
    """A fine map, brought down by a 3x3/2 convolution, joined with the top-down map there."""

    def __init__(self, fine: int, depth: int, *, act: ActFactory, norm: BatchNormSettings) -> None:
        super().__init__()
        self.down = ConvNormAct(fine, 2 * fine, 3, 2, act=act, norm=norm)
        self.block = CSPBlock(4 * fine, 2 * fine, depth, act=act, norm=norm)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[B, fine, 2H, 2W] and [B, 2 * fine, H, W] -> [B, 2 * fine, H, W]."""
        return self.block(torch.cat([self.down(fine), coarse], 1))


class CSPPANet(nn.Module):
    """SPP on C5, then the path-aggregation network of CSP blocks.

    Source: Liu et al., "Path Aggregation Network", 2018; blocks as in yolov4-csp.
    """

    def __init__(
        self,
        cin: tuple[int, int, int],
        *,
        width: int = 512,
        depth: int = 2,
        spp_before: tuple[int, ...] = (1, 3, 1),
        spp_after: tuple[int, ...] = (1, 3),
        act: ActFactory,
        norm: BatchNormSettings | None = None,
    ) -> None:
        super().__init__()
        norm = norm or BatchNormSettings()
        c3, c4, c5 = cin
        self.out_channels = (width // 4, width // 2, width)
        self.spp = SPPBlock(c5, width, before=spp_before, after=spp_after, act=act, norm=norm)
        self.top_down4 = TopDown(width, c4, depth, act=act, norm=norm)
        self.top_down3 = TopDown(width // 2, c3, depth, act=act, norm=norm)
        self.bottom_up4 = BottomUp(width // 4, depth, act=act, norm=norm)
        self.bottom_up5 = BottomUp(width // 2, depth, act=act, norm=norm)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4, C5 -> maps of width w/4, w/2, w at strides 8, 16, 32."""
        c3, c4, c5 = features
        n5 = self.spp(c5)
        n4 = self.top_down4(n5, c4)
        n3 = self.top_down3(n4, c3)
        m4 = self.bottom_up4(n3, n4)
        return n3, m4, self.bottom_up5(m4, n5)
