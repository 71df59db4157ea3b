"""Batches: which samples in which order, joined, prepared by worker processes."""

import atexit
import math
import multiprocessing
import signal
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from detector.data.dataset import Item, Key, TrainSet, ValSet
from detector.data.sampling import draw_order, epoch_length
from detector.data.streams import Streams
from detector.structures import Batch, Sample


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys of a `TrainSet`, in an order that (seed, epoch) fixes.

    Every image comes once an epoch, or as often as `repeats` asks for. With `sides`, each batch has a
    height and a width of its own, drawn from (seed, epoch, batch). Of several processes each gets its
    share of every batch, which may be none of its images.

    Attributes:
        epoch, start: the epoch that the next iteration runs, and its first batch; set them before.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        repeats: np.ndarray | None = None,
        sides: Sequence[int] = (),
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """`length`: number of images; `repeats`: [length], see `sampling`; `sides`: pixels."""
        self.images, self.batch_size, self.seed = length, batch_size, seed
        self.repeats, self.sides = repeats, sides
        self.length = length if repeats is None else epoch_length(repeats)
        self.rank, self.processes = rank, processes
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.repeats is None:
            order = rng.permutation(self.images).tolist()
        else:
            order = draw_order(rng, self.repeats).tolist()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = batch[self.rank :: self.processes]
            if self.sides:
                size = self._size(number)
                yield [(self.epoch, index, size) for index in mine]
            else:
                yield [(self.epoch, index) for index in mine]

    def key(self, epoch: int, index: int) -> Key | None:
        """The whole key of a sample, with the size of its batch; None where the epoch has it not."""
        was, self.epoch, self.start = (self.epoch, self.start), epoch, 0
        keys = [key for batch in self for key in batch if key[1] == index]
        self.epoch, self.start = was
        return keys[0] if keys else None

    def _size(self, batch: int) -> tuple[int, int]:
        """Height and width of a batch."""
        height, width = Streams(self.seed, self.epoch, batch).of("size").choice(self.sides, 2)
        return int(height), int(width)


def collate(items: Sequence[Item]) -> Batch:
    """A batch of the items that could be read; it may be empty."""
    good = [item for item in items if item.sample is not None]
    samples: list[Sample] = [item.sample for item in good if item.sample is not None]
    size = samples[0].image.shape[:2] if samples else (0, 0)
    images = np.zeros((len(samples), 3, *size), np.uint8)
    for row, sample in zip(images, samples, strict=True):
        cv2.split(sample.image, list(row))  # ten times as fast as numpy's transpose
    return Batch(
        images=torch.from_numpy(images),
        boxes_xyxy=_join([sample.boxes_xyxy for sample in samples], (0, 4), np.float32),
        labels=_join([sample.labels for sample in samples], (0,), np.int64),
        image_index=_owners([len(sample.boxes_xyxy) for sample in samples]),
        ignore_xyxy=_join([sample.ignore_xyxy for sample in samples], (0, 4), np.float32),
        ignore_index=_owners([len(sample.ignore_xyxy) for sample in samples]),
        image_ids=[sample.image_id for sample in samples],
        placements=[item.placement for item in good if item.placement is not None],
        unreadable=[line for item in items for line in item.unreadable],
    )


def _join(parts: list[np.ndarray], empty: tuple[int, ...], dtype: type) -> torch.Tensor:
    joined = np.concatenate(parts) if parts else np.zeros(empty)
    return torch.from_numpy(np.ascontiguousarray(joined, dtype=dtype))


def _owners(counts: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64)
    )


def _prepare(_worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # which a terminal or a scheduler sends to all:
        signal.signal(number, signal.SIG_IGN)  # the training process decides when they end


@atexit.register
def _end_workers() -> None:
    """Python ends its children by SIGTERM, and waits; after a fault there may be some left."""
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
        repeats: np.ndarray | None = None,
        sides: Sequence[int] = (),
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """`batch_size`: images a batch, of all processes together; this one is number `rank`."""
        self.dataset = dataset
        self.sampler = EpochSampler(
            len(dataset),
            batch_size,
            dataset.seed,
            repeats=repeats,
            sides=sides,
            rank=rank,
            processes=processes,
        )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_prepare,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
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
