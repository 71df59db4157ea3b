"""Augmented training samples by (epoch, index).

The randomness of a sample comes from (seed, epoch, index) alone, so that any augmented image can be
made again and the number of workers changes nothing.
"""

import time

import torch

from detector.data.augment.geometry import Size, height_and_width
from detector.data.augment.streams import Streams
from detector.data.image_reader import ImageReader
from detector.data.image_sources import ImageSources, SampleMaker, SampleRequest
from detector.data.sampling import EpochOrder
from detector.data.store.image_store import ImageStore
from detector.structures import LoadedSample, LoadTime

# Of a training sample: epoch, index and, if its batch has its own size, (height, width).
Key = tuple[int, int] | tuple[int, int, tuple[int, int]]


class TrainSet(torch.utils.data.Dataset[LoadedSample]):
    """Augmented samples by (epoch, index) or (epoch, index, size).

    An index beyond the number of images repeats image `index % len(reader)` with other random numbers.

    Attributes:
        reader: the raw samples.
        bag: the augmentations.
        size: of the samples, pixels, where the key gives none.
        seed: of the run.
        mosaic_until: the first epoch without mosaic, paste, CutMix and MixUp.
        order: of an epoch's samples.
        window: mosaic, paste, CutMix and MixUp take their images from the last `window` samples of the
            epoch's order, the current one included (at the beginning of an epoch: from its first
            `window` samples); 0: from all images.
    """

    def __init__(
        self,
        reader: ImageReader,
        bag: SampleMaker,
        *,
        size: Size,
        seed: int,
        mosaic_until: int,
        order: EpochOrder | None = None,
        window: int = 0,
    ) -> None:
        self.reader, self.bag = reader, bag
        self.size, self.seed, self.mosaic_until = size, seed, mosaic_until
        self.order, self.window = order or EpochOrder(len(reader), seed), window

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> LoadedSample:
        epoch, index, *size = key
        return self.sample(epoch, index, size[0] if size else None)

    def with_store(self, store: ImageStore | None) -> "TrainSet":
        """The same samples, read through a cache of decoded images."""
        return self._copy(self.reader.with_store(store), self.mosaic_until)

    def with_mosaic_until(self, epoch: int) -> "TrainSet":
        """The same samples, which mix no images from `epoch` on."""
        return self._copy(self.reader, epoch)

    def _copy(self, reader: ImageReader, mosaic_until: int) -> "TrainSet":
        return TrainSet(
            reader,
            self.bag,
            size=self.size,
            seed=self.seed,
            mosaic_until=mosaic_until,
            order=self.order,
            window=self.window,
        )

    def sample(self, epoch: int, index: int, size: Size | None = None) -> LoadedSample:
        """Makes one sample; the same arguments always give the same sample."""
        started, read_before = time.perf_counter(), self.reader.seconds
        request = SampleRequest(
            ImageSources(self.reader, self.order, self.window, epoch=epoch, index=index),
            Streams(self.seed, epoch, index),
            height_and_width(size or self.size),
            mixes=epoch < self.mosaic_until,
        )
        sample = self.bag.make_sample(request)
        seconds = LoadTime(self.reader.seconds - read_before, time.perf_counter() - started)
        return LoadedSample(sample, unreadable=tuple(request.sources.unreadable), seconds=seconds)
