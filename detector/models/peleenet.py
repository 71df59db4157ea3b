"""PeleeNet."""

import torch
from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct


class Stem(nn.Module):
    """3x3/2; then 1x1 and 3x3/2 beside a max pool of 2; 1x1 of concat[pool, convolutions]."""

    def __init__(self, channels: int, *, act: ActFactory, norm: BatchNormSettings) -> None:
        super().__init__()
        self.first = ConvNormAct(3, channels, 3, 2, act=act, norm=norm)
        self.squeeze = ConvNormAct(channels, channels // 2, 1, act=act, norm=norm)
        self.down = ConvNormAct(channels // 2, channels, 3, 2, act=act, norm=norm)
        self.pool = nn.MaxPool2d(2)
        self.mix = ConvNormAct(2 * channels, channels, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, channels, H/4, W/4]."""
        x = self.first(x)
        return self.mix(torch.cat([self.pool(x), self.down(self.squeeze(x))], 1))


class TwoWayDense(nn.Module):
    """concat[x, 3x3(1x1(x)), 3x3(3x3(1x1(x)))], each branch of half the growth."""

    def __init__(
        self, cin: int, growth: int, width: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        """`width`: of the 1x1 convolutions, in halves of the growth; at most half of the input's."""
        super().__init__()
        half = growth // 2
        hidden = half * width // 4 * 4
        if hidden > cin / 2:
            hidden = cin // 8 * 4
        self.one = nn.Sequential(
            ConvNormAct(cin, hidden, 1, act=act, norm=norm),
            ConvNormAct(hidden, half, 3, act=act, norm=norm),
        )
        self.two = nn.Sequential(
            ConvNormAct(cin, hidden, 1, act=act, norm=norm),
            ConvNormAct(hidden, half, 3, act=act, norm=norm),
            ConvNormAct(half, half, 3, act=act, norm=norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cin + growth, H, W]."""
        return torch.cat([x, self.one(x), self.two(x)], 1)


class PeleeNet(nn.Module):
    """Two-way dense stages at strides 4, 8, 16, 32, with 1x1 transitions that keep the width.

    Source: R. J. Wang et al., "Pelee", 2018.

    Attributes:
        out_channels: of C3, C4, C5. strides: of the same.
    """

    strides = (8, 16, 32)

    def __init__(
        self,
        *,
        stem: int = 32,
        growth: int = 32,
        depths: tuple[int, ...] = (3, 4, 8, 6),
        widths: tuple[int, ...] = (1, 2, 4, 4),
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`depths`: dense layers of the stages. `widths`: of `TwoWayDense`, of each stage."""
        super().__init__()
        self.stem = Stem(stem, act=act, norm=norm)
        stages, channels, cin = [], [], stem
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            layers: list[nn.Module] = [] if number == 0 else [nn.AvgPool2d(2)]
            for _ in range(depth):
                layers.append(TwoWayDense(cin, growth, width, act=act, norm=norm))
                cin += growth
            layers.append(ConvNormAct(cin, cin, 1, act=act, norm=norm))
            stages.append(nn.Sequential(*layers))
            channels.append(cin)
        self.out_channels = tuple(channels[1:])
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.stages[1](self.stages[0](self.stem(x)))
        c4 = self.stages[2](c3)
        return c3, c4, self.stages[3](c4)
