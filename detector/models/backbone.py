"""The backbones: CSP-DarkNet, and the small one of yolov4-tiny."""

from torch import Tensor, nn

from detector.nn import (
    ActFactory,
    BatchNormSettings,
    ConvNormAct,
    CSPStage,
    Residual,
    TinyStage,
)


class CSPDarknet(nn.Module):
    """A stem, a plain or CSP first stage, and four CSP stages.

    Attributes:
        out_channels: of C3, C4, C5. strides: of the same.

    Example:
        >>> net = CSPDarknet(act=activation("mish"))  # CSP-DarkNet-53 as in yolov4-csp
        >>> [tuple(c.shape) for c in net(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 8, 8), (1, 512, 4, 4), (1, 1024, 2, 2)]
    """

    strides = (8, 16, 32)

    def __init__(
        self,
        *,
        stem: int = 32,
        channels: tuple[int, ...] = (64, 128, 256, 512, 1024),
        stage1_hidden: int = 32,
        stage1_csp: bool = False,
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """Widths and depths of stages 1..5 (strides 2, 4, 8, 16, 32).

        Args:
            stem: channels of the first convolution, at full resolution.
            channels: output channels of the stages.
            stage1_hidden: bottleneck width of the residual units in stage 1.
            stage1_csp: make stage 1 a CSP stage, with branches of full width, as in yolov4.
            depths: residual units in the stages.
            miwrc: how their sums are weighted; see `WeightedSum`.
            act, norm: of every convolution.
        """
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.out_channels = (c3, c4, c5)
        self.stem = ConvNormAct(3, stem, 3, act=act, norm=norm)
        parts = {"miwrc": miwrc, "act": act, "norm": norm}
        if stage1_csp:
            self.stage1: nn.Module = CSPStage(
                stem, c1, depths[0], branch=c1, hidden=stage1_hidden, **parts
            )
        else:
            self.stage1 = nn.Sequential(
                ConvNormAct(stem, c1, 3, 2, act=act, norm=norm),
                *[Residual(c1, stage1_hidden, **parts) for _ in range(depths[0])],
            )
        self.stage2 = CSPStage(c1, c2, depths[1], **parts)
        self.stage3 = CSPStage(c2, c3, depths[2], **parts)
        self.stage4 = CSPStage(c3, c4, depths[3], **parts)
        self.stage5 = CSPStage(c4, c5, depths[4], **parts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stage1(self.stem(x))))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


class TinyDarknet(nn.Module):
    """The backbone of yolov4-tiny: two strided convolutions, three stages with max pools in between.

    Attributes:
        out_channels: of C4 and C5. strides: of the same.
    """

    strides = (16, 32)

    def __init__(
        self,
        *,
        stem: tuple[int, int] = (32, 64),
        first_half: bool = False,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`first_half`: use the first half of the channels in each stage; darknet uses the second."""
        super().__init__()
        s, c = stem
        self.out_channels = (4 * c, 8 * c)
        self.stem = nn.Sequential(
            ConvNormAct(3, s, 3, 2, act=act, norm=norm), ConvNormAct(s, c, 3, 2, act=act, norm=norm)
        )
        self.stage1 = TinyStage(c, first_half=first_half, act=act, norm=norm)
        self.stage2 = TinyStage(2 * c, first_half=first_half, act=act, norm=norm)
        self.stage3 = TinyStage(4 * c, first_half=first_half, act=act, norm=norm)
        self.last = ConvNormAct(8 * c, 8 * c, 3, act=act, norm=norm)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> C4 at stride 16, C5 at stride 32."""
        x, _ = self.stage1(self.stem(x))
        x, _ = self.stage2(self.pool(x))
        x, c4 = self.stage3(self.pool(x))
        return c4, self.last(self.pool(x))
