"""DropBlock: drops square blocks of a feature map where dropout drops single cells."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


class DropBlock2d(nn.Module):
    """Drops square blocks of cells in training, independently per channel; the identity in evaluation.

    Kept cells are scaled by (all cells) / (kept cells). Blocks are drawn by torch's generator.

    Source: Ghiasi et al., "DropBlock", 2018, algorithm 1; the ramp is their scheduled DropBlock. Differs
    from it in that blocks may lie partly outside the map and the rate accounts for overlaps: every cell,
    also at the border, is dropped with exactly `probability`; the paper rarely drops corners.

    Cells are counted in float32: torchvision's `drop_block2d` counts in the map's dtype, which overflows
    in float16.

    Attributes:
        block_size: height and width of a block, cells; limited to the smaller of the map's.
        target: probability that a cell is dropped once the ramp is over.
        ramp: fraction of training over which the probability rises from 0 to `target`.
        probability: the current one; see `advance`.

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
        """Sets `probability` for the elapsed fraction of training, `progress` in [0, 1]."""
        self.probability = self.target * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, dtype and memory format."""
        if not self.training or self.probability == 0.0:
            return x
        batch, channels, height, width = x.shape
        size = min(self.block_size, height, width)
        # a cell is kept if none of the size^2 blocks that cover it is drawn
        rate = 1 - (1 - self.probability) ** (1 / size**2)
        last = x.is_contiguous(memory_format=torch.channels_last)
        starts = torch.empty(
            (batch, channels, height + size - 1, width + size - 1),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        ).bernoulli_(rate)  # 1 where a block starts
        kept = 1 - max_pool2d(starts, size, stride=1)  # [B, C, H, W]
        count = kept.sum(dtype=torch.float32).clamp(min=1)
        return x * kept * (kept.numel() / count)

    def extra_repr(self) -> str:
        """Block size and current probability."""
        return f"block_size={self.block_size}, probability={self.probability:g}"
