"""Images and their boxes by number, as they are in the data set."""

import functools
import os
import time
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from detector.data.augment.geometry import box_scale_factors, shrink_image
from detector.data.scaled_boxes import shrink_boxes
from detector.data.store.image_files import read_image
from detector.data.store.image_store import ImageStore
from detector.data.store.index import Index
from detector.structures import Sample


class ImageReader:
    """Samples of an index by number.

    Attributes:
        index: the images and their boxes.
        max_size: images whose longer side is larger are shrunk to it, pixels; None shrinks none.
        store: cache of decoded images, or None; it affects only speed.
        seconds: time spent in `read` so far.
    """

    def __init__(
        self, index: Index, max_size: int | None = None, *, store: ImageStore | None = None
    ) -> None:
        self.index, self.max_size, self.store = index, max_size, store
        self._boxes = index.boxes_xyxy if max_size is None else shrink_boxes(index, max_size)
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.index)

    def with_store(self, store: ImageStore | None) -> "ImageReader":
        """A reader of the same images that keeps decoded images in `store`."""
        return ImageReader(self.index, self.max_size, store=store)

    def read(self, number: int, position: int | None = None) -> Sample:
        """Reads image `number` and its boxes, in pixels of the (shrunk) image.

        The image must not be written to: it may belong to the store.

        Args:
            number: of the image in the index.
            position: of the image in the epoch's order; a tile buffer needs it.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        started = time.perf_counter()
        image, scale = self._read_image(number, position)
        sample = self._add_boxes(number, image, scale)
        self.seconds += time.perf_counter() - started
        return sample

    def read_ids(self, image_ids: Iterable[int]) -> Iterator[Sample]:
        """Reads the images with these ids; see `read`."""
        number_of = {int(i): number for number, i in enumerate(self.index.image_ids)}
        return (self.read(number_of[image_id]) for image_id in image_ids)

    def _read_image(
        self, number: int, position: int | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The shrunk image, and factors [4] for its boxes if its file has another size than annotated."""
        if self.index.pixels is not None:
            image = self.index.pixels[number]
            color = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
            return shrink_image(color, self.max_size), None
        store = self.store
        key = 0 if store is None else store.key(number, self._path)
        if store is not None:
            image = store.get(number, position, key)
            if image is not None:
                return image, None
        image = read_image(self._path(number))
        small = shrink_image(image, self.max_size)
        if image.shape[:2] != tuple(self.index.sizes[number].tolist()):
            return small, box_scale_factors(image.shape, small.shape)
        if store is not None:
            store.put(number, position, key, small)
        return small, None

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, self.index.files[number])  # noqa: PTH118  # 5 times as fast

    def _add_boxes(self, number: int, image: np.ndarray, scale: np.ndarray | None) -> Sample:
        """The image with its boxes; `scale` as returned by `_read_image`."""
        index = self.index
        rows = slice(index.starts[number], index.starts[number + 1])
        boxes, labels, ignore = self._boxes[rows], index.labels[rows], self._boxes[:0]
        if scale is not None:
            boxes = index.boxes_xyxy[rows] * scale
        if number in self._images_with_crowds:
            crowd = index.crowd[rows]
            boxes, labels, ignore = boxes[~crowd], labels[~crowd], boxes[crowd]
        return Sample(image, boxes, labels, int(index.image_ids[number]), ignore)

    @functools.cached_property
    def _folder(self) -> str:
        return str(self.index.folder)

    @functools.cached_property
    def _images_with_crowds(self) -> frozenset[int]:
        rows = self.index.crowd.nonzero()[0]
        return frozenset((np.searchsorted(self.index.starts, rows, side="right") - 1).tolist())
