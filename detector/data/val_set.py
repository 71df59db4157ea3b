"""Validation samples by number."""

import torch

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
        shapes: (height, width) of each image's canvas, pixels; the same within a batch.
    """

    def __init__(self, reader: ImageReader, placement: Placement, *, batch_size: int) -> None:
        self.reader, self.placement = reader, placement
        self.batches, self.shapes = placement.plan(reader.index.sizes, batch_size)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> LoadedSample:
        try:
            sample = self.reader.read(number)
        except UnreadableImage as error:
            return LoadedSample(None, unreadable=(str(error),))
        return LoadedSample(*self.placement.place(sample, self.shapes[number]))
