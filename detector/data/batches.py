"""Batches: which samples in which order, joined, prepared by worker processes."""

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
from detector.data.dataset import Item, Key, TrainSet, ValSet
from detector.data.sampling import EpochOrder
from detector.device import keep_freed_memory
from detector.structures import Batch, Sample, Seconds

PREFETCH = 4  # batches that a worker is ahead


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys of a `TrainSet`, in an order that (seed, epoch) fixes.

    With `sides`, each batch has a height and a width of its own, drawn from (seed, epoch, batch). Of
    several processes each gets its share of every batch, which may be none of its images.

    Attributes:
        epoch, start: the epoch that the next iteration runs, and its first batch; set them before.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        sides: Sequence[int] = (),
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """`sides`: that a batch may have, pixels."""
        self.order, self.batch_size, self.sides = order, batch_size, sides
        self.rank, self.processes = rank, processes
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return math.ceil(self.order.length / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order.of(self.epoch).tolist()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = batch[self.rank :: self.processes]
            if self.sides:
                size = self._size(self.epoch, number)
                yield [(self.epoch, index, size) for index in mine]
            else:
                yield [(self.epoch, index) for index in mine]

    def key(self, epoch: int, index: int) -> Key | None:
        """The whole key of a sample, with the size of its batch; None where the epoch has it not."""
        position = self.order.position(epoch, index)
        if position is None:
            return None
        if not self.sides:
            return epoch, index
        return epoch, index, self._size(epoch, position // self.batch_size)

    def _size(self, epoch: int, batch: int) -> tuple[int, int]:
        """Height and width of a batch."""
        height, width = Streams(self.order.seed, epoch, batch).of("size").choice(self.sides, 2)
        return int(height), int(width)


def positions_in_flight(batch_size: int, workers: int) -> int:
    """Samples between the newest one that is made and the oldest one that may still be in the making.

    Of all processes that train together, which are never more than a batch apart.
    """
    return (max(workers, 1) * PREFETCH + 3) * batch_size


def collate(items: Sequence[Item]) -> Batch:
    """A batch of the items that could be read; it may be empty."""
    begun = time.perf_counter()
    good = [item for item in items if item.sample is not None]
    samples: list[Sample] = [item.sample for item in good if item.sample is not None]
    size = samples[0].image.shape[:2] if samples else (0, 0)
    images = np.empty((len(samples), *size, 3), np.uint8)
    for row, sample in zip(images, samples, strict=True):
        row[:] = sample.image
    boxes = _join([sample.boxes_xyxy for sample in samples], (0, 4), np.float32)
    made = sum(item.seconds.all for item in items)
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),  # in memory as it was: channels_last
        boxes_xyxy=boxes,
        labels=_join([sample.labels for sample in samples], (0,), np.int64),
        image_index=_owners([len(sample.boxes_xyxy) for sample in samples]),
        ignore_xyxy=_join([sample.ignore_xyxy for sample in samples], (0, 4), np.float32),
        ignore_index=_owners([len(sample.ignore_xyxy) for sample in samples]),
        image_ids=[sample.image_id for sample in samples],
        placements=[item.placement for item in good if item.placement is not None],
        unreadable=[line for item in items for line in item.unreadable],
        seconds=Seconds(
            sum(item.seconds.reading for item in items), made + time.perf_counter() - begun
        ),
    )


def _join(parts: list[np.ndarray], empty: tuple[int, ...], dtype: type) -> torch.Tensor:
    joined = np.concatenate(parts) if parts else np.zeros(empty)
    return torch.from_numpy(np.ascontiguousarray(joined, dtype=dtype))


def _owners(counts: list[int]) -> torch.Tensor:
    # numpy's: torch's waits for threads that training keeps busy
    return torch.from_numpy(np.arange(len(counts)).repeat(counts))


def _prepare(_worker: int) -> None:
    keep_freed_memory()  # a canvas a sample, of the same size each time
    cv2.setNumThreads(0)  # the workers are the parallelism
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # which a terminal or a scheduler sends to all:
        signal.signal(number, signal.SIG_IGN)  # the training process decides when they end


@atexit.register
def _end_workers() -> None:
    """Python ends its children by SIGTERM, and waits; after a fault there may be some left."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take this for a fault
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
        sides: Sequence[int] = (),
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """`batch_size`: images a batch, of all processes together; this one is number `rank`."""
        self.dataset = dataset
        self.sampler = EpochSampler(
            dataset.order, batch_size, sides=sides, rank=rank, processes=processes
        )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_prepare,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator(),  # of its own: see `val_loader`
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sampler)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` from batch `start` on, always the same ones."""
        self.sampler.epoch, self.sampler.start = number, start
        return iter(self._loader)


def val_loader(
    dataset: ValSet,
    *,
    workers: int,
    pin_memory: bool = False,
    batches: list[list[int]] | None = None,
) -> DataLoader[Item]:
    """Validation batches, as the data set's protocol joins them; `batches` are those of this process.

    Each pass over a DataLoader draws a number for its workers, which nothing here uses: from a generator
    of its own, so that DropBlock draws the same in a run that was stopped within an epoch.
    """
    return DataLoader(
        dataset,
        batch_sampler=dataset.batches if batches is None else batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_prepare,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
