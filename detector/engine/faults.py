"""What may go wrong within a step: numbers that are not finite, and memory that is full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from detector.errors import UserError
from detector.structures import Batch

LEAST_SCALE = 2.0**-10  # of fp16's losses; from 65,536 it takes 26 overflows in a row
MOST_IDS = 16  # of images in a message; events.jsonl has all


class MemoryFull(UserError):
    """Several processes cannot repeat a step; the run goes on with batches in `parts` from its file."""

    def __init__(self, message: str, parts: int) -> None:
        super().__init__(message)
        self.parts = parts


class Criterion(Protocol):
    """A loss: named scalars, each a mean over its batch, and their weights in the total."""

    weights: dict[str, float]

    def __call__(
        self, raw: Sequence[Tensor], batch: Batch, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Raw maps and their batch -> unweighted scalars.

        `total` adds counts up over the rest of the batch, which other processes have, or other parts of
        it that are computed later. A criterion divides by what it returns, and so gives its part of the
        losses of the joined batch. Counts follow from the batch and the shapes of the maps alone.
        """
        ...


@dataclass(slots=True)
class MicroBatch:
    """A batch that waits for the optimiser step.

    Attributes:
        batch: of this process, on the host.
        count: its images in all processes.
        largest: the most images that a process has of it.
        position: its number, counted over all epochs.
        losses: weighted, detached; this process's part.
    """

    batch: Batch
    count: int
    largest: int
    position: int
    losses: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Buffers:
    """A copy of a model's buffers (BatchNorm's statistics), to return to."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._own: dict[torch.dtype, list[Tensor]] = {}
        self._kept: dict[torch.dtype, list[Tensor]] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Copies them; by type, which takes a few kernels in place of hundreds."""
        self._own = {}
        for buffer in self.model.buffers():
            self._own.setdefault(buffer.dtype, []).append(buffer)
        if {d: len(v) for d, v in self._own.items()} != {d: len(v) for d, v in self._kept.items()}:
            self._kept = {d: [b.clone() for b in own] for d, own in self._own.items()}
            return
        for dtype, own in self._own.items():
            torch._foreach_copy_(self._kept[dtype], own)  # pyright: ignore

    @torch.no_grad()
    def restore(self) -> None:
        """Takes back what was done to them since."""
        for dtype, own in self._own.items():
            torch._foreach_copy_(own, self._kept[dtype])  # pyright: ignore


def totals_of_whole(
    criterion: Criterion,
    raw: Sequence[Tensor],
    batch: Batch,
    total: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """What `total` returns to a criterion for a whole batch, call by call.

    Args:
        criterion: of the batch; it is asked once, without gradient, about maps of zeros.
        raw: maps of a part of the batch.
        batch: the whole one, on the device.
        total: sums over the processes.
    """
    found: list[Tensor] = []

    def note(values: Tensor) -> Tensor:
        found.append(total(values))
        return found[-1]

    # in 32 bits or more, so that nobody converts, which would take the memory of the whole
    kinds = [torch.promote_types(level.dtype, torch.float32) for level in raw]
    zeros = [
        level.new_zeros((), dtype=kind).expand(len(batch), *level.shape[1:])
        for level, kind in zip(raw, kinds, strict=True)
    ]
    with torch.no_grad():
        criterion(zeros, batch, note)
    return found


def first_not_finite(model: nn.Module) -> str:
    """The parameter nearest to the loss whose gradient is not finite; "" where all are."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return name
    return ""


def some(ids: Sequence[int]) -> str:
    """Image ids for a message."""
    shown = ", ".join(map(str, ids[:MOST_IDS]))
    return f"{shown} and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else shown
