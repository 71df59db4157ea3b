"""What a training sample is made of: its own image, others to mix in, its random numbers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from detector.data.augment.streams import Streams
from detector.data.image_reader import ImageReader
from detector.data.sampling import EpochOrder
from detector.data.store.image_files import UnreadableImage
from detector.structures import Sample

# Of an image: its number in the index and, for a tile buffer, its position in the epoch's order.
Source = tuple[int, int | None]


class ImageSources:
    """The images that a sample is made of.

    Attributes:
        own: the sample's own image.
        unreadable: a line for each file that could not be read so far.
    """

    def __init__(
        self, reader: ImageReader, order: EpochOrder, window: int, *, epoch: int, index: int
    ) -> None:
        """`window`: as in `TrainSet`."""
        self._reader, self._images = reader, len(reader)
        self._order, self._first, self._count = None, 0, self._images
        position = order.position(epoch, index) if window else None
        if position is not None:
            self._order = order.indices(epoch)
            self._count = min(window, len(self._order))
            self._first = max(position + 1 - self._count, 0)
        self.own: Source = index % self._images, position
        self.unreadable: list[str] = []

    def draw_one(self, rng: np.random.Generator) -> Source:
        """Draws an image to mix in."""
        return self.draw(rng, 1)[0]

    def draw(self, rng: np.random.Generator, count: int) -> list[Source]:
        """Draws images to mix in, with replacement."""
        drawn = rng.integers(self._first, self._first + self._count, count).tolist()
        if self._order is None:
            return [(number, None) for number in drawn]
        return [(int(self._order[position]) % self._images, position) for position in drawn]

    def read(self, source: Source) -> Sample | None:
        """Reads an image with its boxes; None if its file cannot be read."""
        try:
            return self._reader.read(*source)
        except UnreadableImage as error:
            self.unreadable.append(str(error))
            return None


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What a bag makes a sample from.

    Attributes:
        sources: its images.
        streams: its random numbers.
        shape: height and width of the sample, pixels.
        mixes: whether images are mixed in this epoch.
    """

    sources: ImageSources
    streams: Streams
    shape: tuple[int, int]
    mixes: bool


class SampleMaker(Protocol):
    """A bag of augmentations: `Bag` of detectors, `ClassBag` of classifiers."""

    def make_sample(self, request: SampleRequest) -> Sample | None:
        """Makes a sample; None where no file could be read."""
        ...
