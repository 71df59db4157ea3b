"""Validation samples by number."""

import torch

from detector.data.augment.noise import GaussianNoise
from detector.data.image_reader import ImageReader
from detector.data.placement import Placement
from detector.data.store.image_files import UnreadableImage
from detector.structures import LoadedSample


class ValSet(torch.utils.data.Dataset[LoadedSample]):
    """Samples by number, each placed on its canvas.

    Attributes:
        reader: the raw samples.
        placement: how an image is placed on its canvas, and which images share a batch.
        batches: the image numbers of each batch.
        noise: standard deviation of normal noise, whose seed is an image's number; their range is [0, 1].
        shapes: (height, width) of each image's canvas, pixels; the same within a batch.
    """

    def __init__(
        self, reader: ImageReader, placement: Placement, *, batch_size: int, noise: float = 0.0
    ) -> None:
        self.reader, self.placement, self.noise = reader, placement, noise
        self.batches, self.shapes = placement.plan(reader.index.sizes, batch_size)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> LoadedSample:
        try:
            sample = self.reader.read(number)
        except UnreadableImage as error:
            return LoadedSample(None, unreadable=(str(error),))
        placed, placement = self.placement.place(sample, self.shapes[number])
        if self.noise:
            placed = GaussianNoise(self.noise, seed=number).apply(placed)
        return LoadedSample(placed, placement)
