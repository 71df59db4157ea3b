"""The largest batch that fits into a GPU's memory, found by trying (`train.batch_size: auto`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detector.device import Hardware, scale_images
from detector.engine.micro_batch import Criterion
from detector.structures import Batch

# Fraction of the free memory that a probe keeps free for what it cannot see: other sizes, fragmentation.
MARGIN = 0.1
BOXES_PER_IMAGE = 20  # the mean of mosaics of COCO


def find_max_batch_size(fits: Callable[[int], bool], limit: int) -> int:
    """The largest n in 1..limit for which `fits(n)`; 0 if there is none.

    Doubles n as long as it fits, then bisects; assumes that if n fits, all smaller numbers do.
    """
    good, bad = 0, limit + 1
    while good + 1 < bad:
        number = min(max(2 * good, 1), limit) if bad > limit else (good + bad) // 2
        if fits(number):
            good = number
        else:
            bad = number
    return good


def divide_nominal_batch(nominal: int, largest: int) -> int:
    """The batch size that makes up the nominal batch in as few equal batches as possible.

    Args:
        nominal: images per optimizer step.
        largest: maximum number of images per batch.
    """
    batches = -(-nominal // largest)
    return -(-nominal // batches)


class MemoryProbe:
    """Tests whether a batch fits, by two training steps with optimizer state and EMA in memory.

    As a context manager it limits torch to the free memory less `MARGIN`, and lifts the limit afterwards.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        hardware: Hardware,
        *,
        size: int,
    ) -> None:
        """The model is unusable afterwards, since it trains on noise. `size`: image size, pixels."""
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.hardware, self.size = hardware, size
        self._ema: list[Tensor] = []

    def __enter__(self) -> "MemoryProbe":
        if self.hardware.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.hardware.device)
            free += torch.cuda.memory_reserved(self.hardware.device)
            torch.cuda.set_per_process_memory_fraction(
                (1 - MARGIN) * free / total, self.hardware.device
            )
        return self

    def __exit__(self, *_: Any) -> None:
        self._ema = []
        if self.hardware.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.hardware.device)

    def fits(self, images: int) -> bool:
        """Whether two training steps with a batch of this many images fit into the memory."""
        try:
            for _ in range(2):  # only the second has the optimizer's state
                self._step(images)
        except torch.OutOfMemoryError:
            enough = False
        else:
            enough = True
        self.optimizer.zero_grad()
        if self.hardware.device.type == "cuda":
            torch.cuda.empty_cache()
        return enough

    def _step(self, images: int) -> None:
        if not self._ema:
            self._ema = [p.detach().clone() for p in self.model.parameters()]
        self.model.train()
        batch = self.hardware.move(self._make_batch(images))
        with self.hardware.autocast():
            raw = self.model(scale_images(batch.images))
        losses = self.criterion(raw, batch, lambda counts: counts)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def _make_batch(self, images: int) -> Batch:
        """A batch of noise, with boxes of all sizes."""
        generator = torch.Generator().manual_seed(0)
        size, count = self.size, images * BOXES_PER_IMAGE
        corners = torch.rand(count, 2, 2, generator=generator).sort(1).values * size  # [n, 2, xy]
        return Batch(
            images=torch.randint(
                0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator
            ),
            boxes_xyxy=corners.flatten(1),
            labels=torch.zeros(count, dtype=torch.int64),
            image_index=torch.arange(images).repeat_interleave(BOXES_PER_IMAGE),
            ignore_xyxy=torch.zeros(0, 4),
            ignore_index=torch.zeros(0, dtype=torch.int64),
            image_ids=list(range(images)),
        )
