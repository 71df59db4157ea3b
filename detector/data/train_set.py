"""Augmented training samples by (epoch, index).

The randomness of a sample comes from (seed, epoch, index) alone, so that any augmented image can be
made again and the number of workers changes nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from detector.data.augment.color import HSV
from detector.data.augment.geometry import (
    Affine,
    Flip,
    Region,
    Size,
    height_and_width,
    letterbox,
    resize_to_fit,
)
from detector.data.augment.mix import CutMix, Erase, MixUp, Paste
from detector.data.augment.mosaic import Mosaic
from detector.data.augment.noise import GaussianNoise
from detector.data.augment.streams import Streams
from detector.data.image_reader import ImageReader
from detector.data.sampling import EpochOrder
from detector.data.store.image_files import UnreadableImage
from detector.data.store.image_store import ImageStore
from detector.structures import LoadedSample, LoadTime, Sample

# Of a training sample: epoch, index and, if its batch has its own size, (height, width).
Key = tuple[int, int] | tuple[int, int, tuple[int, int]]
# Of an image: its number in the index and, for a tile buffer, its position in the epoch's order.
Source = tuple[int, int | None]
# A sample and its own random numbers -> the changed sample, of the same size.
Extra = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Bag:
    """The augmentations and their strengths, in the order they run; 0 switches one off.

    `BagConfig` says the unit of each.
    """

    mosaic: float = 0.0
    mosaic9: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    degrees: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    paste: float = 0.0
    cutmix: float = 0.0
    mixup: float = 0.0
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    flip_lr: float = 0.0
    flip_ud: float = 0.0
    extra: Extra | None = None
    erase: float = 0.0
    noise: float = 0.0


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
        bag: Bag,
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
        augmentation = _SampleAugmentation(self, epoch, index, height_and_width(size or self.size))
        sample = augmentation.make()
        seconds = LoadTime(self.reader.seconds - read_before, time.perf_counter() - started)
        return LoadedSample(sample, unreadable=tuple(augmentation.unreadable), seconds=seconds)


class _ImageSources:
    """The images that a sample is made of.

    Attributes:
        own: the sample's own image.
    """

    def __init__(self, dataset: TrainSet, epoch: int, index: int) -> None:
        self._images = len(dataset.reader)
        self._order, self._first, self._count = None, 0, self._images
        position = dataset.order.position(epoch, index) if dataset.window else None
        if position is not None:
            self._order = dataset.order.indices(epoch)
            self._count = min(dataset.window, len(self._order))
            self._first = max(position + 1 - self._count, 0)
        self.own: Source = index % self._images, position

    def draw_one(self, rng: np.random.Generator) -> Source:
        """Draws an image to mix in."""
        return self.draw(rng, 1)[0]

    def draw(self, rng: np.random.Generator, count: int) -> list[Source]:
        """Draws images to mix in, with replacement."""
        drawn = rng.integers(self._first, self._first + self._count, count).tolist()
        if self._order is None:
            return [(number, None) for number in drawn]
        return [(int(self._order[position]) % self._images, position) for position in drawn]


class _SampleAugmentation:
    """Reads and augments one training sample.

    Attributes:
        streams: its random numbers.
        unreadable: a line for each file that could not be read so far.
    """

    def __init__(self, dataset: TrainSet, epoch: int, index: int, shape: tuple[int, int]) -> None:
        self.reader, self.bag, self.shape = dataset.reader, dataset.bag, shape
        self.sources = _ImageSources(dataset, epoch, index)
        self.streams = Streams(dataset.seed, epoch, index)
        self.mixes = epoch < dataset.mosaic_until
        self.unreadable: list[str] = []

    def make(self) -> Sample | None:
        """The sample, or None where no file could be read."""
        bag, rng = self.bag, self.streams.generator()
        canvas = self._compose(self.sources.own, rng)
        if canvas is None:
            return None
        alone, within = canvas
        sample = self._mix(alone) if self.mixes else alone
        color = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v)
        sample = color.apply(sample, within if sample is alone else None)
        sample = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud).apply(sample)
        if bag.extra is not None:
            sample = bag.extra(sample, self.streams.generator("extra"))
        if (rng := self.streams.chance("erase", bag.erase)) is not None:
            height, width = self.shape
            sample = Erase.draw(rng, height=height, width=width).apply(sample)
        if bag.noise:
            rng = self.streams.generator("noise")
            sample = GaussianNoise.draw(rng, sd=bag.noise).apply(sample)
        return sample

    def _compose(
        self, source: Source, rng: np.random.Generator, prefix: str = ""
    ) -> tuple[Sample, Region] | None:
        """An image alone or in a mosaic, after the affine transform; None if nothing can be read.

        Args:
            source: the image.
            rng: for the mosaic and the affine transform.
            prefix: of the names of further streams.

        Returns:
            The sample, and the region outside of which it is only grey.
        """
        use_mosaic = rng.random() < self.bag.mosaic and self.mixes
        sources, grid = [source], 2
        if use_mosaic:
            sources += self.sources.draw(rng, 3)
            nine = self.streams.chance(f"{prefix}mosaic9", self.bag.mosaic9)
            if nine is not None:
                sources, grid = sources + self.sources.draw(nine, 5), 3
        samples = [sample for sample in map(self._read, sources) if sample is not None]
        if not samples:
            return None
        mosaic = Mosaic.draw(rng, size=self.shape, grid=grid) if use_mosaic else None
        affine = self._draw_affine(rng, prefix)
        if mosaic is None:
            sample, _ = letterbox(samples[0], self.shape)
        else:
            samples += [samples[0]] * (grid**2 - len(samples))  # in the place of unreadable ones
            height, width = self.shape
            visible = affine.visible_region(2 * height, 2 * width, self.shape)
            sample = mosaic.apply(samples, self.shape, visible)
        height, width = sample.image.shape[:2]
        within = affine.covered_region(height, width, self.shape)
        return affine.apply(sample, self.shape), within

    def _draw_affine(self, rng: np.random.Generator, prefix: str) -> Affine:
        bag = self.bag
        affine = Affine.draw(
            rng,
            scale=bag.scale,
            translate=bag.translate,
            degrees=bag.degrees,
            shear=bag.shear,
        )
        if not bag.perspective:
            return affine
        perspective = self.streams.generator(f"{prefix}perspective")
        return affine.add_perspective(perspective, bag.perspective)

    def _mix(self, sample: Sample) -> Sample:
        """The sample after paste, CutMix and MixUp."""
        bag, streams = self.bag, self.streams
        if (rng := streams.chance("paste", bag.paste)) is not None:
            donor = self._read(self.sources.draw_one(rng))
            if donor is not None:
                donor = resize_to_fit(donor, self.shape)
                sample = Paste.draw(rng, sample, donor).apply(sample, donor)
        if (rng := streams.chance("cutmix", bag.cutmix)) is not None:
            other = self._compose(self.sources.draw_one(rng), rng, "cutmix ")
            if other is not None:
                height, width = self.shape
                sample = CutMix.draw(rng, height=height, width=width).apply(sample, other[0])
        if (rng := streams.chance("mixup", bag.mixup)) is not None:
            other = self._compose(self.sources.draw_one(rng), rng, "mixup ")
            if other is not None:
                sample = MixUp.draw(rng).apply(sample, other[0])
        return sample

    def _read(self, source: Source) -> Sample | None:
        try:
            return self.reader.read(*source)
        except UnreadableImage as error:
            self.unreadable.append(str(error))
            return None
