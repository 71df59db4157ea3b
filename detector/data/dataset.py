"""Samples by number: read, augment (training) or letterbox (validation).

The randomness of a sample comes from (seed, epoch, index) alone, so that any augmented image can be
made again and the number of workers changes nothing.
"""

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from detector.data.augment.color import HSV
from detector.data.augment.geometry import (
    Affine,
    Flip,
    Region,
    Size,
    factors,
    height_and_width,
    letterbox,
    resize_to_fit,
    shrink,
)
from detector.data.augment.mix import CutMix, Erase, MixUp, Paste
from detector.data.augment.mosaic import Mosaic
from detector.data.augment.streams import Streams
from detector.data.box_sizes import shrunk_boxes
from detector.data.placement import Placement
from detector.data.sampling import EpochOrder
from detector.data.store.image_files import UnreadableImage, read_image
from detector.data.store.image_store import ImageStore
from detector.data.store.index import Index
from detector.structures import LetterboxTransform, Sample, Seconds

# of a training sample: epoch, index and, where it is not the usual one, (height, width)
Key = tuple[int, int] | tuple[int, int, tuple[int, int]]
# of an image: its number in the index and, where that matters, its position in the epoch's order
Source = tuple[int, int | None]
# a sample and its own random numbers -> the sample changed, of the same size
Extra = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Bag:
    """The augmentations and their strengths, in their order; 0 switches one off. Units: `BagConfig`."""

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


class ImageReader:
    """Samples of an index by number.

    Attributes:
        index: the images and their boxes.
        side: larger images are shrunk to it, px; None leaves all as they are.
        store: where decoded images are kept, if anywhere; it changes the time alone.
        seconds: spent in `read` so far.
    """

    def __init__(self, index: Index, side: int | None = None) -> None:
        self.index, self.side = index, side
        self._boxes = index.boxes_xyxy if side is None else shrunk_boxes(index, side)
        self.store: ImageStore | None = None
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.index)

    def read(self, number: int, position: int | None = None) -> Sample:
        """Image `number`, not to be written into, and its boxes, in pixels of what it was shrunk to.

        `position`: of the image in its epoch's order, for stores that go by it.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        begun = time.perf_counter()
        image, odd = self._image(number, position)
        sample = self._labelled(number, image, odd)
        self.seconds += time.perf_counter() - begun
        return sample

    def read_ids(self, image_ids: Iterable[int]) -> Iterator[Sample]:
        """The images of these ids, as `read` returns them."""
        number_of = {int(i): number for number, i in enumerate(self.index.image_ids)}
        return (self.read(number_of[image_id]) for image_id in image_ids)

    def _image(self, number: int, position: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        """An image, shrunk; and its boxes' factors [4] if its file is not of the annotated size."""
        store = self.store
        mark = 0 if store is None else store.mark(number, self._path)
        if store is not None:
            kept = store.get(number, position, mark)
            if kept is not None:
                return kept, None
        image = read_image(self._path(number))
        small = shrink(image, self.side)
        if image.shape[:2] != tuple(self.index.sizes[number].tolist()):
            return small, factors(image.shape, small.shape)
        if store is not None:
            store.put(number, position, mark, small)
        return small, None

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, self.index.files[number])  # noqa: PTH118  # 5 times as fast

    def _labelled(self, number: int, image: np.ndarray, odd: np.ndarray | None) -> Sample:
        """An image with its boxes; see `_image`."""
        index = self.index
        rows = slice(index.starts[number], index.starts[number + 1])
        boxes, labels, ignore = self._boxes[rows], index.labels[rows], self._boxes[:0]
        if odd is not None:
            boxes = index.boxes_xyxy[rows] * odd
        if number in self._crowded:
            crowd = index.crowd[rows]
            boxes, labels, ignore = boxes[~crowd], labels[~crowd], boxes[crowd]
        return Sample(image, boxes, labels, int(index.image_ids[number]), ignore)

    @functools.cached_property
    def _folder(self) -> str:
        return str(self.index.folder)

    @functools.cached_property
    def _crowded(self) -> frozenset[int]:
        """Images with crowds."""
        rows = self.index.crowd.nonzero()[0]
        return frozenset((np.searchsorted(self.index.starts, rows, side="right") - 1).tolist())


@dataclass(frozen=True, slots=True)
class Item:
    """What a worker hands over: a sample or, if none can be read, None; what went wrong; and the time."""

    sample: Sample | None
    placement: LetterboxTransform | None = None
    unreadable: tuple[str, ...] = ()
    seconds: Seconds = Seconds()  # noqa: RUF009  (immutable)


class TrainSet(torch.utils.data.Dataset[Item]):
    """Augmented samples by (epoch, index) or (epoch, index, size).

    An index beyond the number of images is one of them again, augmented anew: `index % len(reader)`.

    Attributes:
        reader: the raw samples.
        bag: the augmentations.
        size: of the samples, pixels, where the key gives none.
        seed: of the run.
        mosaic_until: from this epoch on, images are no longer mixed: no mosaic, pasting, CutMix, MixUp.
        order: of an epoch's samples.
        window: what is mixed in comes from this many samples of the epoch's order, the last of which is
            the sample itself (of the first ones, from as many at the beginning); 0: from all images.
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

    def __getitem__(self, key: Key) -> Item:
        epoch, index, *size = key
        return self.sample(epoch, index, size[0] if size else None)

    def sample(self, epoch: int, index: int, size: Size | None = None) -> Item:
        """One sample; the same one for the same key, whoever asks and in whatever order."""
        begun, read = time.perf_counter(), self.reader.seconds
        made = _Making(self, epoch, index, height_and_width(size or self.size))
        sample = made.sample()
        seconds = Seconds(self.reader.seconds - read, time.perf_counter() - begun)
        return Item(sample, unreadable=tuple(made.unreadable), seconds=seconds)


class _Partners:
    """Where a sample's images come from.

    Attributes:
        own: its own one.
    """

    def __init__(self, dataset: TrainSet, epoch: int, index: int) -> None:
        self._images = len(dataset.reader)
        self._order, self._first, self._count = None, 0, self._images
        position = dataset.order.position(epoch, index) if dataset.window else None
        if position is not None:
            self._order = dataset.order.of(epoch)
            self._count = min(dataset.window, len(self._order))
            self._first = max(position + 1 - self._count, 0)
        self.own: Source = index % self._images, position

    def one(self, rng: np.random.Generator) -> Source:
        """An image to mix in."""
        return self.draw(rng, 1)[0]

    def draw(self, rng: np.random.Generator, count: int) -> list[Source]:
        """Images to mix in, with replacement."""
        drawn = rng.integers(self._first, self._first + self._count, count).tolist()
        if self._order is None:
            return [(number, None) for number in drawn]
        return [(int(self._order[position]) % self._images, position) for position in drawn]


class _Making:
    """One training sample on its way.

    Attributes:
        streams: its random numbers.
        unreadable: a line for each file that could not be read so far.
    """

    def __init__(self, dataset: TrainSet, epoch: int, index: int, shape: tuple[int, int]) -> None:
        self.reader, self.bag, self.shape = dataset.reader, dataset.bag, shape
        self.partners = _Partners(dataset, epoch, index)
        self.streams = Streams(dataset.seed, epoch, index)
        self.mixes = epoch < dataset.mosaic_until
        self.unreadable: list[str] = []

    def sample(self) -> Sample | None:
        """The sample, or None where no file could be read."""
        bag, rng = self.bag, self.streams.of()
        placed = self._placed(self.partners.own, rng)
        if placed is None:
            return None
        alone, within = placed
        sample = self._mixed(alone) if self.mixes else alone
        colour = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v)
        sample = colour.apply(sample, within if sample is alone else None)
        sample = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud).apply(sample)
        if bag.extra is not None:
            sample = bag.extra(sample, self.streams.of("extra"))
        if (rng := self.streams.chance("erase", bag.erase)) is not None:
            height, width = self.shape
            sample = Erase.draw(rng, height=height, width=width).apply(sample)
        return sample

    def _placed(
        self, source: Source, rng: np.random.Generator, part: str = ""
    ) -> tuple[Sample, Region] | None:
        """An image alone or in a mosaic, moved, and outside of what it is grey; None if it is unreadable.

        `part` names streams beside `rng`.
        """
        bag = self.bag
        use_mosaic = rng.random() < bag.mosaic and self.mixes
        sources, grid = [source], 2
        if use_mosaic:
            sources += self.partners.draw(rng, 3)
            nine = self.streams.chance(f"{part}mosaic9", bag.mosaic9)
            if nine is not None:
                sources, grid = sources + self.partners.draw(nine, 5), 3
        samples = [sample for sample in map(self._read, sources) if sample is not None]
        if not samples:
            return None
        mosaic = Mosaic.draw(rng, size=self.shape, grid=grid) if use_mosaic else None
        affine = Affine.draw(
            rng,
            scale=bag.scale,
            translate=bag.translate,
            degrees=bag.degrees,
            shear=bag.shear,
        )
        if bag.perspective:
            affine = affine.tilted(self.streams.of(f"{part}perspective"), bag.perspective)
        if mosaic is None:
            sample, _ = letterbox(samples[0], self.shape)
        else:
            samples += [samples[0]] * (grid**2 - len(samples))  # in the place of unreadable ones
            height, width = self.shape
            view = affine.view(2 * height, 2 * width, self.shape)
            sample = mosaic.apply(samples, self.shape, view)
        height, width = sample.image.shape[:2]
        within = affine.covered(height, width, self.shape)
        return affine.apply(sample, self.shape), within

    def _mixed(self, sample: Sample) -> Sample:
        """The sample with what other images add to it."""
        bag, streams = self.bag, self.streams
        if (rng := streams.chance("paste", bag.paste)) is not None:
            donor = self._read(self.partners.one(rng))
            if donor is not None:
                donor = resize_to_fit(donor, self.shape)
                sample = Paste.draw(rng, sample, donor).apply(sample, donor)
        if (rng := streams.chance("cutmix", bag.cutmix)) is not None:
            other = self._placed(self.partners.one(rng), rng, "cutmix ")
            if other is not None:
                height, width = self.shape
                sample = CutMix.draw(rng, height=height, width=width).apply(sample, other[0])
        if (rng := streams.chance("mixup", bag.mixup)) is not None:
            other = self._placed(self.partners.one(rng), rng, "mixup ")
            if other is not None:
                sample = MixUp.draw(rng).apply(sample, other[0])
        return sample

    def _read(self, source: Source) -> Sample | None:
        try:
            return self.reader.read(*source)
        except UnreadableImage as error:
            self.unreadable.append(str(error))
            return None


class ValSet(torch.utils.data.Dataset[Item]):
    """Samples placed as a protocol says, by number.

    Attributes:
        reader: the raw samples.
        batches: the numbers that each batch joins.
        shapes: (height, width) of each image's canvas; one within a batch.
    """

    def __init__(self, reader: ImageReader, protocol: Placement, *, batch_size: int) -> None:
        self.reader, self.protocol = reader, protocol
        self.batches, self.shapes = protocol.plan(reader.index.sizes, batch_size)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> Item:
        try:
            sample = self.reader.read(number)
        except UnreadableImage as error:
            return Item(None, unreadable=(str(error),))
        return Item(*self.protocol.place(sample, self.shapes[number]))
