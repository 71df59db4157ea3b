"""Samples by number: read, augment (training) or letterbox (validation).

The randomness of a sample comes from (seed, epoch, index) alone, so that any augmented image can be
made again and the number of workers changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from detector.data.colour import HSV
from detector.data.files import UnreadableImage, read_image
from detector.data.geometry import Affine, Flip, Size, height_and_width, letterbox, resize_to_fit
from detector.data.index import Index
from detector.data.mix import CutMix, Erase, MixUp, Paste
from detector.data.mosaic import Mosaic
from detector.data.protocol import Protocol
from detector.data.streams import Streams
from detector.structures import LetterBox, Sample

# of a training sample: epoch, index and, where it is not the usual one, (height, width)
Key = tuple[int, int] | tuple[int, int, tuple[int, int]]
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


class Reader:
    """Raw samples of an index by number."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def read(self, number: int) -> Sample:
        """Image `number` and its boxes, in its own pixels.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        index = self.index
        image = read_image(str(index.folder / str(index.files[number])))
        rows = slice(index.starts[number], index.starts[number + 1])
        boxes, crowd = index.boxes_xyxy[rows], index.crowd[rows]
        return Sample(
            image=image,
            boxes_xyxy=boxes[~crowd],
            labels=index.labels[rows][~crowd],
            image_id=int(index.image_ids[number]),
            ignore_xyxy=boxes[crowd],
        )


@dataclass(frozen=True, slots=True)
class Item:
    """What a worker hands over: a sample (None if it cannot be read) and what went wrong."""

    sample: Sample | None
    placement: LetterBox | None = None
    unreadable: tuple[str, ...] = ()


class TrainSet(torch.utils.data.Dataset[Item]):
    """Augmented samples by (epoch, index) or (epoch, index, size).

    An index beyond the number of images is one of them again, augmented anew: `index % len(reader)`.

    Attributes:
        reader: the raw samples.
        bag: the augmentations.
        size: of the samples, pixels, where the key gives none.
        seed: of the run.
        mosaic_until: from this epoch on, images are no longer mixed: no mosaic, pasting, CutMix, MixUp.
    """

    def __init__(
        self, reader: Reader, bag: Bag, *, size: Size, seed: int, mosaic_until: int
    ) -> None:
        self.reader, self.bag = reader, bag
        self.size, self.seed, self.mosaic_until = size, seed, mosaic_until

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Item:
        epoch, index, *size = key
        return self.sample(epoch, index, size[0] if size else None)

    def sample(self, epoch: int, index: int, size: Size | None = None) -> Item:
        """One sample; the same one for the same key, whoever asks and in whatever order."""
        made = _Making(self, epoch, index, height_and_width(size or self.size))
        return Item(made.sample(), unreadable=tuple(made.unreadable))


class _Making:
    """One training sample on its way.

    Attributes:
        streams: its random numbers.
        unreadable: a line for each file that could not be read so far.
    """

    def __init__(self, dataset: TrainSet, epoch: int, index: int, shape: tuple[int, int]) -> None:
        self.reader, self.bag, self.shape = dataset.reader, dataset.bag, shape
        self.number = index % len(dataset.reader)
        self.streams = Streams(dataset.seed, epoch, index)
        self.mixes = epoch < dataset.mosaic_until
        self.unreadable: list[str] = []

    def sample(self) -> Sample | None:
        """The sample, or None where no file could be read."""
        bag, rng = self.bag, self.streams.of()
        sample = self._placed(self.number, rng)
        if sample is None:
            return None
        if self.mixes:
            sample = self._mixed(sample)
        sample = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v).apply(sample)
        sample = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud).apply(sample)
        if bag.extra is not None:
            sample = bag.extra(sample, self.streams.of("extra"))
        if (rng := self.streams.chance("erase", bag.erase)) is not None:
            height, width = self.shape
            sample = Erase.draw(rng, height=height, width=width).apply(sample)
        return sample

    def _placed(self, number: int, rng: np.random.Generator, part: str = "") -> Sample | None:
        """Image `number` alone or in a mosaic, moved; `part` names streams beside `rng`."""
        bag = self.bag
        use_mosaic = rng.random() < bag.mosaic and self.mixes
        numbers, grid = [number], 2
        if use_mosaic:
            numbers += rng.integers(0, len(self.reader), 3).tolist()
            nine = self.streams.chance(f"{part}mosaic9", bag.mosaic9)
            if nine is not None:
                numbers, grid = numbers + nine.integers(0, len(self.reader), 5).tolist(), 3
        samples = [sample for sample in map(self._read, numbers) if sample is not None]
        if not samples:
            return None
        if use_mosaic:
            samples += [samples[0]] * (grid**2 - len(samples))  # in the place of unreadable ones
            sample = Mosaic.draw(rng, size=self.shape, grid=grid).apply(samples, self.shape)
        else:
            sample, _ = letterbox(samples[0], self.shape)
        affine = Affine.draw(
            rng,
            scale=bag.scale,
            translate=bag.translate,
            degrees=bag.degrees,
            shear=bag.shear,
        )
        if bag.perspective:
            affine = affine.tilted(self.streams.of(f"{part}perspective"), bag.perspective)
        return affine.apply(sample, self.shape)

    def _mixed(self, sample: Sample) -> Sample:
        """The sample with what other images add to it."""
        bag, streams = self.bag, self.streams
        if (rng := streams.chance("paste", bag.paste)) is not None:
            donor = self._read(self._another(rng))
            if donor is not None:
                donor = resize_to_fit(donor, self.shape)
                sample = Paste.draw(rng, sample, donor).apply(sample, donor)
        if (rng := streams.chance("cutmix", bag.cutmix)) is not None:
            other = self._placed(self._another(rng), rng, "cutmix ")
            if other is not None:
                height, width = self.shape
                sample = CutMix.draw(rng, height=height, width=width).apply(sample, other)
        if (rng := streams.chance("mixup", bag.mixup)) is not None:
            other = self._placed(self._another(rng), rng, "mixup ")
            if other is not None:
                sample = MixUp.draw(rng).apply(sample, other)
        return sample

    def _another(self, rng: np.random.Generator) -> int:
        return int(rng.integers(0, len(self.reader)))

    def _read(self, number: int) -> Sample | None:
        try:
            return self.reader.read(number)
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

    def __init__(self, reader: Reader, protocol: Protocol, *, batch_size: int) -> None:
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
