"""Samples by number: read, augment (training) or letterbox (validation).

The randomness of a sample comes from (seed, epoch, index) alone, so that any augmented image can be
made again and the number of workers changes nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch

from detector.data.colour import HSV
from detector.data.files import UnreadableImage, read_image
from detector.data.geometry import Affine, Flip, letterbox
from detector.data.index import Index
from detector.data.mosaic import Mosaic
from detector.data.protocol import Protocol
from detector.structures import LetterBox, Sample


@dataclass(frozen=True, slots=True)
class Bag:
    """The augmentations and their strengths; 0 switches one off. Units as in `BagConfig`."""

    mosaic: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    degrees: float = 0.0
    shear: float = 0.0
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    flip_lr: float = 0.0
    flip_ud: float = 0.0


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
    """Augmented samples of size x size pixels, by (epoch, index).

    Attributes:
        reader: the raw samples.
        mosaic_until: mosaic is off from this epoch on.
    """

    def __init__(
        self, reader: Reader, bag: Bag, *, size: int, seed: int, mosaic_until: int
    ) -> None:
        self.reader, self.bag = reader, bag
        self.size, self.seed, self.mosaic_until = size, seed, mosaic_until

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, number = key
        rng = np.random.default_rng([self.seed, epoch, number])
        bag, size = self.bag, self.size
        unreadable: list[str] = []
        use_mosaic = rng.random() < bag.mosaic and epoch < self.mosaic_until
        numbers = [number]
        if use_mosaic:
            numbers += rng.integers(0, len(self.reader), 3).tolist()
        samples = []
        for each in numbers:
            try:
                samples.append(self.reader.read(each))
            except UnreadableImage as error:
                unreadable.append(str(error))
        if not samples:
            return Item(None, unreadable=tuple(unreadable))
        if use_mosaic:
            samples += [samples[0]] * (4 - len(samples))  # in the place of unreadable ones
            sample = Mosaic.draw(rng, size=size).apply(samples, size)
        else:
            sample, _ = letterbox(samples[0], size)
        affine = Affine.draw(
            rng,
            scale=bag.scale,
            translate=bag.translate,
            degrees=bag.degrees,
            shear=bag.shear,
        )
        sample = affine.apply(sample, size)
        sample = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v).apply(sample)
        flip = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud)
        return Item(flip.apply(sample), unreadable=tuple(unreadable))


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
