"""DropBlock: squares of a feature map are dropped, where dropout would drop single cells."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


class DropBlock2d(nn.Module):
    """Drops squares of cells in training, each channel by itself; does nothing in evaluation.

    What is kept is scaled up by cells / cells kept. Draws come from torch's generator.

    Source: Ghiasi et al., "DropBlock", 2018, algorithm 1; the ramp is their scheduled DropBlock. Differs
    from it in where squares may lie: also partly outside the map. So every cell, at the border too, is
    dropped with the same probability, and it is the one that was asked for; the paper's rate leaves
    overlaps out of account, and its corners are hardly ever dropped.

    torchvision's `drop_block2d` counts cells in the map's own dtype, which overflows in float16.

    Attributes:
        block_size: side of the squares, cells; on a smaller map, the map's shorter side.
        target: probability for a cell to be dropped once the ramp is over.
        ramp: share of training over which the probability rises from 0 to `target`.
        probability: what holds now; see `advance`.

    Example:
        >>> drop = DropBlock2d(block_size=7, target=0.1, ramp=0.85)
        >>> drop.advance(0.425)
        >>> drop
        DropBlock2d(block_size=7, probability=0.05)
    """

    def __init__(self, *, block_size: int, target: float, ramp: float = 0.0) -> None:
        super().__init__()
        self.block_size, self.target, self.ramp = block_size, target, ramp
        self.probability = 0.0 if ramp else target

    def advance(self, progress: float) -> None:
        """Sets `probability` for when the share `progress` of training, in [0, 1], is done."""
        self.probability = self.target * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, dtype and memory format."""
        if not self.training or self.probability == 0.0:
            return x
        batch, channels, height, width = x.shape
        side = min(self.block_size, height, width)
        # a cell is kept if none of the side^2 squares that would cover it is there
        rate = 1 - (1 - self.probability) ** (1 / side**2)
        last = x.is_contiguous(memory_format=torch.channels_last)
        squares = torch.empty(  # 1 where one begins
            (batch, channels, height + side - 1, width + side - 1),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        ).bernoulli_(rate)
        kept = 1 - max_pool2d(squares, side, stride=1)  # [B, C, H, W]
        count = kept.sum(dtype=torch.float32).clamp(min=1)
        return x * kept * (kept.numel() / count)

    def extra_repr(self) -> str:
        """For print()."""
        return f"block_size={self.block_size}, probability={self.probability:g}"
