"""Backbones for images of 32 pixels: ResNet-20, WRN-10-2, SimpleNet, fully connected layers."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.nn import ActFactory, BatchNormAct2d, BatchNormSettings, ConvNormAct


class NormActConv(nn.Module):
    """BatchNorm, activation, 3x3 convolution: the order of pre-activation networks."""

    def __init__(
        self, cin: int, cout: int, stride: int = 1, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.norm = BatchNormAct2d(cin, eps=norm.eps, momentum=norm.momentum)
        self.act = act(cin)
        self.conv = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/stride, W/stride]."""
        return self.conv(self.norm(x, self.act))


class BasicBlock(nn.Module):
    """act(x + 3x3(3x3(x))); where the shape changes, x is subsampled and padded with zero channels.

    Source: He et al., "Deep Residual Learning", 2015, section 4.2, shortcuts A.
    """

    def __init__(
        self, cin: int, cout: int, stride: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.stride, self.extra = stride, cout - cin
        self.first = ConvNormAct(cin, cout, 3, stride, act=act, norm=norm)
        self.second = ConvNormAct(cout, cout, 3, act=lambda _: nn.Identity(), norm=norm)
        self.act = act(cout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/stride, W/stride]."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.extra))
        return self.act(shortcut + self.second(self.first(x)))


class WideBlock(nn.Module):
    """A pre-activation block: x + conv(norm-act(conv(norm-act(x)))), a 1x1 shortcut where widths differ.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", 2016, block B(3, 3).
    """

    def __init__(
        self, cin: int, cout: int, stride: int, *, act: ActFactory, norm: BatchNormSettings
    ) -> None:
        super().__init__()
        self.norm = BatchNormAct2d(cin, eps=norm.eps, momentum=norm.momentum)
        self.act = act(cin)
        self.first = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.second = NormActConv(cout, cout, act=act, norm=norm)
        same = cin == cout and stride == 1
        self.shortcut = None if same else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/stride, W/stride]."""
        entry = self.norm(x, self.act)
        shortcut = x if self.shortcut is None else self.shortcut(entry)
        return shortcut + self.second(self.first(entry))


class SmallResNet(nn.Module):
    """A stem and three stages of `depth` residual blocks; the second and third halve the resolution.

    Attributes:
        out_channels: of its only map. strides: of the same.
    """

    strides = (4,)

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = (16, 16, 32, 64),
        depth: int = 3,
        wide: bool = False,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """ResNet-20 by default: 6 depth + 2 layers.

        Args:
            channels: of the stem and of the stages.
            depth: blocks in each stage.
            wide: pre-activation blocks (`WideBlock`): 6 depth + 4 layers with the shortcuts.
            act, norm: of every convolution.
        """
        super().__init__()
        self.out_channels = channels[-1:]
        block = WideBlock if wide else BasicBlock
        self.stem: nn.Module = ConvNormAct(3, channels[0], 3, act=act, norm=norm)
        if wide:
            self.stem = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        blocks = []
        for stage, (cin, cout) in enumerate(itertools.pairwise(channels)):
            for number in range(depth):
                first = number == 0
                stride = 2 if first and stage > 0 else 1
                blocks.append(block(cin if first else cout, cout, stride, act=act, norm=norm))
        self.blocks = nn.Sequential(*blocks)
        self.norm: BatchNormAct2d | None = None
        if wide:
            self.norm = BatchNormAct2d(channels[-1], eps=norm.eps, momentum=norm.momentum)
            self.act = act(channels[-1])

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[B, 3, H, W] in [0, 1] -> ([B, channels, H/4, W/4],)."""
        x = self.blocks(self.stem(x))
        return (x if self.norm is None else self.norm(x, self.act),)


class SimpleNet(nn.Module):
    """Thirteen convolutions, four max pools and a global one; 5.48 M parameters.

    Source: Hasanpour et al., "Lets keep it simple", 2016. Dropout after each pool is our choice.

    Attributes:
        out_channels: of its only map, of 1 x 1. strides: of the last map before the global pool.
    """

    strides = (16,)
    # channels and kernel of each convolution; 0: a max pool of 2 and dropout
    LAYERS = (
        *((64, 3), (128, 3), (128, 3), (128, 3), 0, (128, 3), (128, 3), (256, 3), 0),
        *((256, 3), (256, 3), 0, (512, 3), 0, (2048, 1), (256, 1), (256, 3)),
    )

    def __init__(
        self,
        *,
        width: float = 1.0,
        dropout: float = 0.2,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`width`: factor of all channels."""
        super().__init__()
        layers: list[nn.Module] = []
        cin = 3
        for layer in self.LAYERS:
            if isinstance(layer, int):
                layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
                continue
            cout = round(layer[0] * width)
            layers.append(ConvNormAct(cin, cout, layer[1], act=act, norm=norm))
            cin = cout
        self.out_channels = (cin,)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[B, 3, H, W] in [0, 1] -> ([B, 256, 1, 1],)."""
        return (torch.amax(self.layers(x), (2, 3), keepdim=True),)


class FullyConnected(nn.Module):
    """`depth` layers of a linear map without bias, BatchNorm, activation and dropout.

    The kind of network in which the Mish paper (Misra, 2019, figure 5a) compares activations by depth, 15
    to 25; width and dropout are our choice. A layer is a 1x1 convolution of a map of 1 x 1.

    Attributes:
        out_channels: of its only map, of 1 x 1. strides: of the same, for images of 32 px.
    """

    strides = (32,)

    def __init__(
        self,
        *,
        depth: int = 15,
        width: int = 500,
        dropout: float = 0.25,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`width`: units of a layer."""
        super().__init__()
        self.out_channels = (width,)
        layers: list[nn.Module] = []
        cin = 3 * 32**2
        for _ in range(depth):
            layers += [ConvNormAct(cin, width, 1, act=act, norm=norm), nn.Dropout(dropout)]
            cin = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[B, 3, H, W] in [0, 1], averaged to 32 x 32 if larger -> ([B, width, 1, 1],)."""
        if x.shape[-2:] != (32, 32):
            x = functional.adaptive_avg_pool2d(x, 32)
        return (self.layers(x.flatten(1)[:, :, None, None]),)
