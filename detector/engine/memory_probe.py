"""How many images a GPU's memory holds, by trying."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detector.device import Hardware, scale_images
from detector.engine.faults import Criterion
from detector.structures import Batch

MARGIN = 0.1  # of the free memory, for what a probe does not see: other sizes, fragments
BOXES = 20  # an image; mosaics of COCO have so many on average


def find_max_batch_size(fits: Callable[[int], bool], limit: int) -> int:
    """The greatest n in 1..limit for which `fits(n)`, where smaller ones fit as well; 0 if none does.

    Doubles n as long as it fits, then halves the interval.
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
    """The size of the fewest batches of the same size that make up the nominal batch.

    Args:
        nominal: images a step.
        largest: images a batch at most.
    """
    batches = -(-nominal // largest)
    return -(-nominal // batches)


class MemoryProbe:
    """Tries whether so many images fit: two whole steps, with the optimiser's memory and the average's.

    As a context it leaves `MARGIN` of the memory free, and afterwards the limit is off.
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
        """The parts are of no use afterwards: the steps learn from noise. `size`: side, pixels."""
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.hardware, self.size = hardware, size
        self._average: list[Tensor] = []

    def __enter__(self) -> "MemoryProbe":
        if self.hardware.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.hardware.device)
            free += torch.cuda.memory_reserved(self.hardware.device)
            torch.cuda.set_per_process_memory_fraction(
                (1 - MARGIN) * free / total, self.hardware.device
            )
        return self

    def __exit__(self, *_: Any) -> None:
        self._average = []
        if self.hardware.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.hardware.device)

    def fits(self, images: int) -> bool:
        """Whether the memory is enough for a batch of so many images."""
        try:
            for _ in range(2):  # the second with the optimiser's state
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
        if not self._average:
            self._average = [p.detach().clone() for p in self.model.parameters()]
        self.model.train()
        batch = self.hardware.move(self._batch(images))
        with self.hardware.autocast():
            raw = self.model(scale_images(batch.images))
        losses = self.criterion(raw, batch, lambda counts: counts)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def _batch(self, images: int) -> Batch:
        """Noise, with boxes of all sizes."""
        draw = torch.Generator().manual_seed(0)
        side, count = self.size, images * BOXES
        corners = torch.rand(count, 2, 2, generator=draw).sort(1).values * side  # [n, 2, xy]
        none = torch.zeros(0, dtype=torch.int64)
        return Batch(
            torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=draw),
            corners.flatten(1),
            torch.zeros(count, dtype=torch.int64),
            torch.arange(images).repeat_interleave(BOXES),
            torch.zeros(0, 4),
            none,
            list(range(images)),
        )
