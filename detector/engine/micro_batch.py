"""A micro-batch: one batch of the loader, whose gradients are accumulated until the optimizer step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from detector.distributed import ProcessGroup
from detector.structures import Batch


class Criterion(Protocol):
    """A loss: named scalars, each a mean over its batch, and their weights in the total.

    Attributes:
        weights: of each scalar.
        counts_follow_predictions: whether the counts that it sums depend on the predictions; else they
            depend on the batch and on the shapes of the maps alone.
    """

    weights: dict[str, float]
    counts_follow_predictions: bool

    def __call__(
        self, raw: Sequence[Tensor], batch: Batch, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Raw maps and their batch -> unweighted scalars.

        `total` sums counts over the whole batch: over the other ranks, and over the other chunks of a
        micro-batch. A criterion divides by the returned counts, so the losses of ranks and chunks add up
        to those of the whole batch.
        """
        ...


@dataclass(slots=True)
class MicroBatch:
    """A batch whose gradients are accumulated for an optimizer step.

    Attributes:
        batch: the images of this rank, on the host.
        count: the number of its images over all ranks.
        largest: the largest number of its images on any rank.
        position: its number, counted over all epochs from 0.
        losses: this rank's share of the weighted losses, detached.
    """

    batch: Batch
    count: int
    largest: int
    position: int
    losses: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @classmethod
    def gather(cls, batch: Batch, position: int, process_group: ProcessGroup) -> "MicroBatch":
        """A micro-batch with the counts of all ranks.

        A rank without images gets an empty batch of the others' image size, so that it can take part in
        the collective operations of the forward and backward pass.
        """
        shapes = process_group.all_gather(torch.tensor([len(batch), *batch.images.shape[2:]]))
        height, width = shapes[:, 1:].amax(0).tolist()
        if not len(batch):
            batch = replace(batch, images=batch.images.new_zeros(0, 3, height, width))
        return cls(batch, int(shapes[:, 0].sum()), int(shapes[:, 0].max()), position)

    def add_losses(self, losses: dict[str, Tensor]) -> None:
        """Adds the weighted losses of one chunk."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value.detach()


def sum_losses(micro_batches: Sequence[MicroBatch], totals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses times images: `totals` plus those of the micro-batches."""
    totals = dict(totals)
    for micro_batch in micro_batches:
        for name, value in micro_batch.losses.items():
            totals[name] = totals.get(name, 0) + value * micro_batch.count
    return totals
