"""Batches of samples, collated by worker processes."""

import atexit
import math
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from detector.data.augment.streams import Streams
from detector.data.sampling import EpochOrder
from detector.data.train_set import Key, TrainSet
from detector.data.val_set import ValSet
from detector.device import keep_freed_memory
from detector.structures import Batch, LoadedSample, LoadTime, Sample

PREFETCH = 4  # batches that a worker prepares ahead


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys of a `TrainSet`, in an order that (seed, epoch) fixes.

    With `sizes`, each batch has its own height and width, drawn from (seed, epoch, batch). Each rank
    gets its share of every batch, which may be empty.

    Attributes:
        epoch, start: the epoch and the first batch of the next iteration; set them before it.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        sizes: Sequence[int] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`sizes`: heights and widths that a batch may have, pixels."""
        self.order, self.batch_size, self.sizes = order, batch_size, sizes
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return math.ceil(self.order.length / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order.indices(self.epoch).tolist()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = batch[self.rank :: self.world_size]
            if self.sizes:
                size = self._size(self.epoch, number)
                yield [(self.epoch, index, size) for index in mine]
            else:
                yield [(self.epoch, index) for index in mine]

    def key(self, epoch: int, index: int) -> Key | None:
        """The key of a sample, with the size of its batch; None if the epoch does not have it."""
        position = self.order.position(epoch, index)
        if position is None:
            return None
        if not self.sizes:
            return epoch, index
        return epoch, index, self._size(epoch, position // self.batch_size)

    def _size(self, epoch: int, batch: int) -> tuple[int, int]:
        """Height and width of a batch."""
        height, width = (
            Streams(self.order.seed, epoch, batch).generator("size").choice(self.sizes, 2)
        )
        return int(height), int(width)


def positions_in_flight(batch_size: int, workers: int) -> int:
    """The largest distance, in samples, between two that workers prepare at the same time.

    It covers all ranks, which are never more than one batch apart.
    """
    return (max(workers, 1) * PREFETCH + 3) * batch_size


def collate(items: Sequence[LoadedSample]) -> Batch:
    """A batch of the samples that could be read; it may be empty."""
    started = time.perf_counter()
    good = [item for item in items if item.sample is not None]
    samples: list[Sample] = [item.sample for item in good if item.sample is not None]
    size = samples[0].image.shape[:2] if samples else (0, 0)
    images = np.empty((len(samples), *size, 3), np.uint8)
    for row, sample in zip(images, samples, strict=True):
        row[:] = sample.image
    boxes = _join([sample.boxes_xyxy for sample in samples], (0, 4), np.float32)
    making = sum(item.seconds.total for item in items)
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),  # a view: channels_last in memory
        boxes_xyxy=boxes,
        labels=_join([sample.labels for sample in samples], (0,), np.int64),
        image_index=_image_index([len(sample.boxes_xyxy) for sample in samples]),
        ignore_xyxy=_join([sample.ignore_xyxy for sample in samples], (0, 4), np.float32),
        ignore_index=_image_index([len(sample.ignore_xyxy) for sample in samples]),
        image_ids=[sample.image_id for sample in samples],
        placements=[item.placement for item in good if item.placement is not None],
        unreadable=[line for item in items for line in item.unreadable],
        shares=_join_shares(samples),
        seconds=LoadTime(
            sum(item.seconds.reading for item in items), making + time.perf_counter() - started
        ),
    )


def _join(parts: list[np.ndarray], empty: tuple[int, ...], dtype: type) -> torch.Tensor:
    joined = np.concatenate(parts) if parts else np.zeros(empty)
    return torch.from_numpy(np.ascontiguousarray(joined, dtype=dtype))


def _join_shares(samples: list[Sample]) -> torch.Tensor | None:
    shares = [sample.shares for sample in samples if sample.shares is not None]
    return (
        _join(shares, (0,), np.float32) if shares else None
    )  # a bag gives all samples shares, or none


def _image_index(counts: list[int]) -> torch.Tensor:
    # in numpy: torch would wait for threads that training keeps busy
    return torch.from_numpy(np.arange(len(counts)).repeat(counts))


def _init_worker(_worker: int) -> None:
    keep_freed_memory()  # one canvas per sample, always of the same size
    cv2.setNumThreads(0)  # the workers are the parallelism
    torch.set_num_threads(1)
    # a terminal or a scheduler sends these to all processes; the training process ends its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Kills workers left by a failed run: Python would send SIGTERM, which they ignore, and wait."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error
    for child in multiprocessing.active_children():
        child.kill()


class TrainLoader:
    """Training batches by epoch: `loader.epoch(3)` iterates over those of epoch 3."""

    def __init__(
        self,
        dataset: TrainSet,
        *,
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
        sizes: Sequence[int] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`batch_size`: images per batch, over all ranks."""
        self.dataset = dataset
        self.sampler = EpochSampler(
            dataset.order, batch_size, sizes=sizes, rank=rank, world_size=world_size
        )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_init_worker,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator(),  # separate: see `val_loader`
        )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sampler)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Iterates over the batches of epoch `number`, from batch `start`; they are always the same."""
        self.sampler.epoch, self.sampler.start = number, start
        return iter(self._loader)

    def close(self) -> None:
        """Ends the workers; a later `epoch` starts new ones.

        Left to the garbage collector, each worker costs 5 s: it closes the queues before torch can tell
        the workers through them to end, and torch then waits for each until its time-out.
        """
        iterator, self._loader._iterator = self._loader._iterator, None
        shut_down = getattr(iterator, "_shutdown_workers", None)  # there are none without workers
        if shut_down is not None:
            shut_down()


def val_loader(
    dataset: ValSet,
    *,
    workers: int,
    pin_memory: bool = False,
    batches: list[list[int]] | None = None,
) -> DataLoader[LoadedSample]:
    """Validation batches as the data set plans them, or only `batches` (of this rank).

    Each pass over a DataLoader draws a base seed for its workers, which is not used here. It comes from a
    separate generator, so that DropBlock draws the same numbers in a run resumed within an epoch.
    """
    return DataLoader(
        dataset,
        batch_sampler=dataset.batches if batches is None else batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_init_worker,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
