"""CSP-DarkNet: the backbone of the pacsp family."""

from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct, CSPStage, Residual


class CSPDarknet(nn.Module):
    """Stem, one plain stage, four CSP stages.

    Example:
        >>> net = CSPDarknet(act=activation("mish"))  # CSP-DarkNet-53
        >>> [tuple(c.shape) for c in net(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 8, 8), (1, 512, 4, 4), (1, 1024, 2, 2)]
    """

    def __init__(
        self,
        *,
        stem: int = 32,
        channels: tuple[int, ...] = (64, 128, 256, 512, 1024),
        stage1_hidden: int = 32,
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        act: ActFactory,
        norm: BatchNormSettings | None = None,
    ) -> None:
        super().__init__()
        norm = norm or BatchNormSettings()
        c1, c2, c3, c4, c5 = channels
        self.out_channels = (c3, c4, c5)
        self.stem = ConvNormAct(3, stem, 3, act=act, norm=norm)
        self.stage1 = nn.Sequential(
            ConvNormAct(stem, c1, 3, 2, act=act, norm=norm),
            *[Residual(c1, stage1_hidden, act=act, norm=norm) for _ in range(depths[0])],
        )
        self.stage2 = CSPStage(c1, c2, depths[1], act=act, norm=norm)
        self.stage3 = CSPStage(c2, c3, depths[2], act=act, norm=norm)
        self.stage4 = CSPStage(c3, c4, depths[3], act=act, norm=norm)
        self.stage5 = CSPStage(c4, c5, depths[4], act=act, norm=norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stage1(self.stem(x))))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)
