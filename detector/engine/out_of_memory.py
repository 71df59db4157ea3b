"""Out of memory within a step: its micro-batches are computed again, in more and smaller chunks."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.device import Hardware
from detector.distributed import ProcessGroup
from detector.engine.micro_batch import Criterion, MicroBatch
from detector.errors import UserError
from detector.structures import Batch


class MemoryFull(UserError):
    """A step ran out of memory on several ranks; the resumed run computes batches in `parts` chunks."""

    def __init__(self, message: str, parts: int) -> None:
        super().__init__(message)
        self.parts = parts


class BufferSnapshot:
    """A copy of a model's buffers (the BatchNorm statistics), restored before a step is repeated."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._own: dict[torch.dtype, list[Tensor]] = {}
        self._kept: dict[torch.dtype, list[Tensor]] = {}

    @torch.no_grad()
    def take(self) -> None:
        """Copies the buffers; by dtype, which takes a few kernels instead of hundreds."""
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
        """Sets the buffers back to the copy."""
        for dtype, own in self._own.items():
            torch._foreach_copy_(own, self._kept[dtype])  # pyright: ignore


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a micro-batch that is computed alone.

    Attributes:
        batch: its images, on the device.
        is_last: whether it is the last of its micro-batch.
        counts: raw maps of the chunk -> the `total` of its criterion.
    """

    batch: Batch
    is_last: bool
    counts: Callable[[Sequence[Tensor]], Callable[[Tensor], Tensor]]


def split_into_chunks(
    micro_batch: MicroBatch,
    number: int,
    criterion: Criterion,
    hardware: Hardware,
    process_group: ProcessGroup,
) -> list[Chunk]:
    """Splits a micro-batch into at most `number` chunks of similar size, on the device.

    The number is the same on all ranks, since they synchronise in each chunk; on a single rank no chunk
    is empty.
    """
    batch = hardware.move(micro_batch.batch)
    number = min(number, micro_batch.largest)
    if number == 1:
        return [Chunk(batch, True, lambda _: process_group.all_reduce)]
    parts = batch.chunk(number)
    if criterion.counts_follow_predictions:
        estimates = [
            functools.partial(_estimate_counts, micro_batch.count, len(part), process_group)
            for part in parts
        ]
        return [
            Chunk(part, part is parts[-1], lambda _, total=total: total)
            for part, total in zip(parts, estimates, strict=True)
        ]
    counts = _WholeBatchCounts(criterion, batch, process_group)
    return [Chunk(part, part is parts[-1], counts) for part in parts]


def _estimate_counts(
    images: int, chunk_images: int, process_group: ProcessGroup, counts: Tensor
) -> Tensor:
    """Counts of a micro-batch of `images`, estimated from those of one chunk.

    The predictions of the other chunks are not known yet, so counts that follow from them are taken to be
    proportional to the images. The losses of the chunks then add up to an average of their means.
    """
    own = torch.cat([counts.flatten(), counts.new_tensor([chunk_images])])
    *summed, summed_images = process_group.all_reduce(own)
    return torch.stack(summed).view_as(counts) * (images / summed_images)


class _WholeBatchCounts:
    """Gives the criterion the counts of the whole batch for each chunk, in the order of its calls."""

    def __init__(self, criterion: Criterion, batch: Batch, process_group: ProcessGroup) -> None:
        self.criterion, self.batch, self.process_group = criterion, batch, process_group
        self._counts: list[Tensor] | None = None

    def __call__(self, raw: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        if self._counts is None:
            total = self.process_group.all_reduce
            self._counts = count_whole_batch(self.criterion, raw, self.batch, total)
        known = iter(self._counts)
        return lambda _: next(known)


def count_whole_batch(
    criterion: Criterion,
    raw: Sequence[Tensor],
    batch: Batch,
    total: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """What `total` returns to a criterion for a whole batch, call by call.

    Args:
        criterion: called once, without gradient, on maps of zeros.
        raw: maps of a chunk of the batch.
        batch: the whole batch, on the device.
        total: sums over the ranks.
    """
    counts: list[Tensor] = []

    def record(values: Tensor) -> Tensor:
        counts.append(total(values))
        return counts[-1]

    # float32 or wider: otherwise the criterion converts them, which allocates maps of the whole batch
    dtypes = [torch.promote_types(level.dtype, torch.float32) for level in raw]
    zeros = [
        level.new_zeros((), dtype=dtype).expand(len(batch), *level.shape[1:])
        for level, dtype in zip(raw, dtypes, strict=True)
    ]
    with torch.no_grad():
        criterion(zeros, batch, record)
    return counts


def choose_more_chunks(
    pending: Sequence[MicroBatch], chunks: int, hardware: Hardware, process_group: ProcessGroup
) -> tuple[int, int]:
    """Twice as many chunks as before, and the largest number of images in one.

    Raises:
        UserError: a chunk already is a single image.
        MemoryFull: there are other ranks, which wait within the step that failed here: it cannot be
            repeated.
    """
    largest, more = max(micro_batch.largest for micro_batch in pending), 2 * chunks
    where = f"out of memory on {hardware.device}"
    if chunks >= largest:
        raise UserError(f"{where} with a single image; try a smaller data.size or model.arch")
    if process_group.world_size > 1:
        raise MemoryFull(
            f"{where} (rank {process_group.rank} of {process_group.world_size}) with up to "
            f"{-(-largest // chunks)} images at a time; the resumed run computes each batch in "
            f"{more} chunks on every rank",
            more,
        )
    if hardware.device.type == "cuda":
        torch.cuda.empty_cache()
    return more, -(-largest // more)
