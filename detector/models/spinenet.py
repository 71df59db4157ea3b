"""SpineNet: blocks whose scales are permuted, each made of two earlier ones.

Source: Du et al., "SpineNet", 2020, and the resampling of its authors' code.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from detector.models.csp_resnet import Bottleneck
from detector.models.small_nets import BasicBlock
from detector.nn import ActFactory, BatchNormSettings, ConvNormAct

WIDTHS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}  # of the 3x3 convolutions, by level
EXPANSION = 4  # channels of a bottleneck's output in widths


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the network.

    Attributes:
        level: of its map, which has the stride 2^level.
        kind: bottleneck (1x1, 3x3, 1x1) or basic (two 3x3), with a residual sum.
        parents: numbers of the two blocks whose resampled maps are added to become its input; none for
            those of the stem, which are in a row.
        spare: number of a block of the same shape that is nobody's parent; its map is added as it is.
    """

    level: int
    kind: str
    parents: tuple[int, ...] = ()
    spare: int | None = None

    def width(self, factor: float) -> int:
        """Channels of its 3x3 convolutions."""
        return int(WIDTHS[self.level] * factor)

    def channels(self, factor: float) -> int:
        """Channels of its map."""
        return self.width(factor) * (EXPANSION if self.kind == "bottleneck" else 1)


# The last block of a level makes its map. A detector's levels 3 to 5 need no block after number 14
SPINENET_49 = (
    Block(2, "bottleneck"),
    Block(2, "bottleneck"),
    Block(2, "bottleneck", (0, 1)),
    Block(4, "basic", (0, 1)),
    Block(3, "bottleneck", (2, 3)),
    Block(4, "bottleneck", (2, 4)),
    Block(6, "basic", (3, 5)),
    Block(4, "bottleneck", (3, 5)),
    Block(5, "basic", (6, 7)),
    Block(7, "basic", (6, 8)),
    Block(5, "bottleneck", (8, 9)),
    Block(5, "bottleneck", (8, 10)),
    Block(4, "bottleneck", (5, 10)),
    Block(3, "bottleneck", (4, 10)),
    Block(5, "bottleneck", (7, 12), spare=11),
    Block(7, "bottleneck", (5, 14)),
    Block(6, "bottleneck", (12, 14)),
)


def _no_activation(_channels: int) -> nn.Module:
    return nn.Identity()


class Resample(nn.Module):
    """1x1 to half the width of the parent; to the child's scale; 1x1 to its channels, no activation.

    Down: a 3x3/2 convolution, then max pools of 3, stride 2; up: the nearest pixel.
    """

    def __init__(
        self,
        parent: Block,
        child: Block,
        factor: float,
        *,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """`factor`: of all widths."""
        super().__init__()
        hidden = parent.width(factor) // 2
        self.squeeze = ConvNormAct(parent.channels(factor), hidden, 1, act=act, norm=norm)
        levels = child.level - parent.level
        pools = [nn.MaxPool2d(3, 2, 1) for _ in range(levels - 1)]
        self.down: nn.Module = nn.Identity()
        if levels > 0:
            self.down = nn.Sequential(ConvNormAct(hidden, hidden, 3, 2, act=act, norm=norm), *pools)
        self.expand = ConvNormAct(hidden, child.channels(factor), 1, act=_no_activation, norm=norm)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, channels of the parent, ..] -> [B, channels of the child, height, width]."""
        x = self.down(self.squeeze(x))
        if x.shape[-2:] != size:
            x = functional.interpolate(x, size)
        return self.expand(x)


class Joint(nn.Module):
    """block(act(the sum of the resampled maps of its parents))."""

    def __init__(
        self,
        parents: list[Block],
        block: Block,
        factor: float,
        *,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        super().__init__()
        parts = {"act": act, "norm": norm}
        self.resamples = nn.ModuleList(Resample(p, block, factor, **parts) for p in parents)
        channels, width = block.channels(factor), block.width(factor)
        self.act = act(channels)
        if block.kind == "basic":
            self.block: nn.Module = BasicBlock(channels, channels, 1, **parts)
        else:
            self.block = Bottleneck(channels, width, channels, **parts)

    def forward(self, maps: list[Tensor], spare: Tensor | None, size: tuple[int, int]) -> Tensor:
        """The parents' maps, and one of the block's own shape or None -> [B, channels, *size]."""
        first, second = (
            resample(x, size) for resample, x in zip(self.resamples, maps, strict=True)
        )
        total = first + second
        return self.block(self.act(total if spare is None else total + spare))


class SpineNet(nn.Module):
    """A stem of two bottlenecks, the joints of a table, a 1x1 convolution for each level.

    Attributes:
        out_channels: of its maps. strides: of the same.
    """

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(
        self,
        *,
        blocks: tuple[Block, ...] = SPINENET_49,
        levels: tuple[int, ...] = (3, 4, 5),
        stem: int = 64,
        width: float = 1.0,
        channels: int = 256,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """SpineNet-49 by default, as far as a detector's three levels need it.

        Args:
            blocks: the table; the first two are the stem.
            levels: of its maps, finest first.
            stem: channels of the 7x7 convolution.
            width: factor of the widths of the blocks.
            channels: of each map.
            act, norm: of every convolution.
        """
        super().__init__()
        last = {block.level: number for number, block in enumerate(blocks)}
        self.levels = levels
        self.strides = tuple(2**level for level in levels)
        self.out_channels = (channels,) * len(levels)
        self.outputs = tuple(last[level] for level in levels)
        self.blocks = blocks[: max(self.outputs) + 1]
        parts = {"act": act, "norm": norm}
        self.stem = nn.Sequential(ConvNormAct(3, stem, 7, 2, **parts), nn.MaxPool2d(3, 2, 1))
        inner, outer = blocks[0].width(width), blocks[0].channels(width)
        self.first = Bottleneck(stem, inner, outer, project=True, **parts)
        self.second = Bottleneck(outer, inner, outer, **parts)
        self.joints = nn.ModuleList(
            Joint([blocks[parent] for parent in block.parents], block, width, **parts)
            for block in self.blocks[2:]
        )
        self.ends = nn.ModuleList(
            ConvNormAct(blocks[number].channels(width), channels, 1, **parts)
            for number in self.outputs
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] in [0, 1] -> a map for each level, of ceil(H / stride) x ceil(W / stride)."""
        height, width = x.shape[-2:]
        maps = [self.first(self.stem(x))]
        maps.append(self.second(maps[0]))
        for joint, block in zip(self.joints, self.blocks[2:], strict=True):
            stride = 2**block.level
            size = (-(-height // stride), -(-width // stride))
            parents = [maps[number] for number in block.parents]
            spare = None if block.spare is None else maps[block.spare]
            maps.append(joint(parents, spare, size))
        return tuple(end(maps[number]) for end, number in zip(self.ends, self.outputs, strict=True))
