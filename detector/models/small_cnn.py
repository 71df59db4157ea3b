"""A backbone for images of 32 pixels."""

from torch import Tensor, nn

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct


class SixLayerCNN(nn.Module):
    """Three pairs of 3x3 convolutions, a max pool of 2 after the first two pairs.

    A network of the size that activations are compared with on 32-pixel images (Misra, "Mish", 2019,
    figure 2, whose widths are not published; these are our choice).

    Attributes:
        out_channels: of its only map. strides: of the same.
    """

    strides = (4,)

    def __init__(
        self,
        *,
        channels: tuple[int, int, int] = (32, 64, 128),
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`channels`: of the pairs."""
        super().__init__()
        self.out_channels = channels[-1:]
        layers: list[nn.Module] = []
        cin = 3
        for number, cout in enumerate(channels):
            if number:
                layers.append(nn.MaxPool2d(2))
            layers.append(ConvNormAct(cin, cout, 3, act=act, norm=norm))
            layers.append(ConvNormAct(cout, cout, 3, act=act, norm=norm))
            cin = cout
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[B, 3, H, W] in [0, 1] -> ([B, 128, H/4, W/4],)."""
        return (self.layers(x),)
