"""CSP-ResNet-50 and CSP-ResNeXt-50."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.nn import ActFactory, BatchNormSettings, ConvNormAct, WeightedSum


def _no_activation(_channels: int) -> nn.Module:
    return nn.Identity()


class Bottleneck(nn.Module):
    """act(x + 1x1(3x3(1x1(x)))); the last convolution has no activation.

    Where x has fewer channels than the sum, it is added to the first ones, as in darknet, or projected.
    """

    def __init__(
        self,
        cin: int,
        hidden: int,
        cout: int,
        *,
        groups: int = 1,
        project: bool = False,
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`hidden`: channels of the 3x3 convolution, in `groups`; `miwrc`: see `WeightedSum`.

        `project`: the shortcut is a 1x1 convolution without activation.
        """
        super().__init__()
        self.missing = 0 if project else cout - cin
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = ConvNormAct(cin, cout, 1, act=_no_activation, norm=norm)
        self.squeeze = ConvNormAct(cin, hidden, 1, act=act, norm=norm)
        self.conv = ConvNormAct(hidden, hidden, 3, groups=groups, act=act, norm=norm)
        self.expand = ConvNormAct(hidden, cout, 1, act=_no_activation, norm=norm)
        self.sum = WeightedSum(cout, miwrc)
        self.act = act(cout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H, W]."""
        shortcut = self.shortcut(x)
        if self.missing:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.missing))
        return self.act(self.sum(shortcut, self.expand(self.conv(self.squeeze(x)))))


class CSPBottleneckStage(nn.Module):
    """A cross-stage-partial stage of bottlenecks.

    3x3/2 downsampling, unless it is the first stage; two 1x1 branches, bypass and entry; bottlenecks and
    a 1x1 exit on the entry; 1x1 merge of concat[exit, bypass]. Source: Wang et al., "CSPNet", 2019, as in
    csresnet50.cfg.
    """

    def __init__(
        self,
        cin: int,
        branch: int,
        cout: int,
        depth: int,
        *,
        hidden: int,
        entry: int | None = None,
        linear: bool = True,
        groups: int = 1,
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """A stage of `depth` bottlenecks.

        Args:
            cin: channels of its input.
            branch: of the bypass, the bottlenecks and the exit.
            cout: of its output.
            depth: number of bottlenecks.
            hidden: width of their 3x3 convolutions.
            entry: channels of the entry of the first stage, which keeps the resolution; else `branch`.
            linear: bypass and entry have no activation.
            groups: of the 3x3 convolutions.
            miwrc: how the bottlenecks' sums are weighted; see `WeightedSum`.
            act, norm: of the convolutions.
        """
        super().__init__()
        first_act = _no_activation if linear else act
        self.down: nn.Module = nn.Identity()
        if entry is None:
            self.down = ConvNormAct(cin, cin, 3, 2, groups=groups, act=act, norm=norm)
        entry = entry or branch
        self.bypass = ConvNormAct(cin, branch, 1, act=first_act, norm=norm)
        self.entry = ConvNormAct(cin, entry, 1, act=first_act, norm=norm)
        widths = [entry] + [branch] * (depth - 1)
        parts = {"groups": groups, "miwrc": miwrc, "act": act, "norm": norm}
        self.units = nn.Sequential(*[Bottleneck(w, hidden, branch, **parts) for w in widths])
        self.exit = ConvNormAct(branch, branch, 1, act=act, norm=norm)
        self.merge = ConvNormAct(2 * branch, cout, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] -> [B, cout, H/2, W/2]; the first stage keeps the resolution."""
        x = self.down(x)
        bypass = self.bypass(x)
        return self.merge(torch.cat([self.exit(self.units(self.entry(x))), bypass], 1))


class CSPResNet(nn.Module):
    """A 7x7 stem, a max pool, and four CSP stages of bottlenecks: CSP-ResNet-50 by default.

    Attributes:
        out_channels: of C3, C4, C5. strides: of the same.
    """

    strides = (8, 16, 32)

    def __init__(
        self,
        *,
        stem: int = 64,
        branches: tuple[int, ...] = (128, 256, 512, 1024),
        hidden: tuple[int, ...] = (64, 128, 256, 512),
        channels: tuple[int, ...] = (128, 256, 512, 1024),
        depths: tuple[int, ...] = (3, 3, 5, 2),
        groups: int = 1,
        miwrc: str = "none",
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """Widths and depths of the stages, at strides 4, 8, 16, 32.

        Args:
            stem: channels of the 7x7 convolution.
            branches: of both branches of each stage.
            hidden: of the 3x3 convolutions.
            channels: outputs of the stages.
            depths: bottlenecks in the stages.
            groups: of the 3x3 convolutions, those between the stages included.
            miwrc: how the bottlenecks' sums are weighted; see `WeightedSum`.
            act, norm: of the convolutions.
        """
        super().__init__()
        self.out_channels = channels[1:]
        self.stem = nn.Sequential(ConvNormAct(3, stem, 7, 2, act=act, norm=norm), nn.MaxPool2d(2))
        stages = []
        for number, depth in enumerate(depths):
            first, last = number == 0, number == len(depths) - 1
            stages.append(
                CSPBottleneckStage(
                    stem if first else channels[number - 1],
                    *(branches[number], channels[number], depth),
                    hidden=hidden[number],
                    entry=stem if first else None,
                    linear=not (first or last),  # as in the cfg
                    groups=groups,
                    miwrc=miwrc,
                    act=act,
                    norm=norm,
                )
            )
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> C3, C4, C5 at strides 8, 16, 32."""
        x = self.stages[0](self.stem(x))
        c3 = self.stages[1](x)
        c4 = self.stages[2](c3)
        return c3, c4, self.stages[3](c4)
