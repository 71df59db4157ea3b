"""How validation images are placed on their canvas and grouped into batches.

AP depends on it. `Letterbox` is the default; `PyTorchYOLOv4` and `Darknet` reproduce what those projects
used for their published numbers, together with their thresholds and suppression (`eval.protocol`).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from detector.data.augment.geometry import GREY, letterbox, letterbox_onto, resize_to
from detector.structures import LetterboxTransform, Sample

Shape = tuple[int, int]  # height, width of a canvas, pixels


class Placement(Protocol):
    """A way to place images; each class below is one."""

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Groups images into batches.

        Args:
            sizes: int [n, 2], height and width of the images, pixels.
            batch_size: images per batch.

        Returns:
            The image numbers of each batch, and the canvas of each of the n images.
        """
        ...

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Places a sample on its canvas; returns the transform back to the original, too."""
        ...


def _split_into_batches(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Every image centred on a grey square of `size` pixels, in the annotation file's order."""

    size: int
    grey: int = GREY

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Batches in order, one canvas for all."""
        count = len(sizes)
        return _split_into_batches(list(range(count)), batch_size), [(self.size, self.size)] * count

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Places a sample on its canvas; returns the transform back to the original, too."""
        return letterbox(sample, self.size, grey=self.grey)


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """The central square of an image whose shorter side is scaled to `size` pixels; for classifiers."""

    size: int

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Batches in order, one canvas for all."""
        count = len(sizes)
        return _split_into_batches(list(range(count)), batch_size), [(self.size, self.size)] * count

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Crops a sample; boxes are clipped to the crop, and may then have no area."""
        height, width = sample.image.shape[:2]
        scale = self.size / min(height, width)
        new_height, new_width = (max(round(side * scale), self.size) for side in (height, width))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = resize_to(sample, new_height, new_width, method)
        top, left = (new_height - self.size) // 2, (new_width - self.size) // 2
        image = scaled.image[top : top + self.size, left : left + self.size]
        corner = np.array([left, top] * 2, np.float32)
        boxes, ignore = (
            np.clip(each - corner, 0, self.size) for each in (scaled.boxes_xyxy, scaled.ignore_xyxy)
        )
        transform = LetterboxTransform(
            new_width / width, new_height / height, -left, -top, height, width
        )
        return Sample(image, boxes, sample.labels, sample.image_id, ignore), transform


@dataclass(frozen=True, slots=True)
class Darknet:
    """Every image stretched to the network's height and width, as darknet does without letter_box."""

    height: int
    width: int

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Batches in order, one canvas for all."""
        shape = (self.height, self.width)
        return _split_into_batches(list(range(len(sizes))), batch_size), [shape] * len(sizes)

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Places a sample on its canvas; returns the transform back to the original, too."""
        height, width = sample.image.shape[:2]
        stretched = resize_to(sample, self.height, self.width, cv2.INTER_LINEAR)
        transform = LetterboxTransform(
            self.width / width, self.height / height, 0, 0, height, width
        )
        return stretched, transform


@dataclass(frozen=True, slots=True)
class Rectangular:
    """Images sorted by aspect ratio; a batch's canvas is the smallest multiple of `grid` that holds all.

    The long side of an image becomes `size`, as in `Letterbox`, with less padding to compute.
    """

    size: int
    grid: int

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Batches by rising height / width; the canvas fits the batch's extreme."""
        scaled = sizes * (self.size / sizes.max(axis=1, keepdims=True)) if len(sizes) else sizes
        canvases = np.ceil(np.round(scaled) / self.grid).astype(int) * self.grid
        ratios = sizes[:, 0] / sizes[:, 1] if len(sizes) else np.zeros(0)
        batches = _split_into_batches(np.argsort(ratios, kind="stable").tolist(), batch_size)
        shapes: list[Shape] = [(0, 0)] * len(sizes)
        for batch in batches:
            height, width = canvases[batch].max(axis=0).tolist()
            for number in batch:
                shapes[number] = (height, width)
        return batches, shapes

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Places a sample on its canvas; returns the transform back to the original, too."""
        return letterbox(sample, shape)


@dataclass(frozen=True, slots=True)
class PyTorchYOLOv4:
    """Images sorted by aspect ratio, one canvas per batch: a multiple of 64 pixels, plus half a cell.

    The long side of an image becomes `size`; at 640 the long side of a canvas is therefore 704.
    """

    size: int
    grid: int = 64
    pad: float = 0.5  # cells

    def plan(self, sizes: np.ndarray, batch_size: int) -> tuple[list[list[int]], list[Shape]]:
        """Batches by rising height / width; the canvas fits the batch's extreme."""
        ratios = sizes[:, 0] / sizes[:, 1] if len(sizes) else np.zeros(0)
        batches = _split_into_batches(np.argsort(ratios, kind="stable").tolist(), batch_size)
        shapes: list[Shape] = [(0, 0)] * len(sizes)
        for batch in batches:
            least, most = float(ratios[batch].min()), float(ratios[batch].max())
            shares = (most, 1.0) if most < 1 else (1.0, 1 / least) if least > 1 else (1.0, 1.0)
            height, width = (self._count_cells(share) * self.grid for share in shares)
            for number in batch:
                shapes[number] = (height, width)
        return batches, shapes

    def _count_cells(self, share: float) -> int:
        return math.ceil(share * self.size / self.grid + self.pad)

    def place(self, sample: Sample, shape: Shape) -> tuple[Sample, LetterboxTransform]:
        """Places a sample on its canvas; returns the transform back to the original, too."""
        height, width = sample.image.shape[:2]
        scale = self.size / max(height, width)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = max(int(height * scale), 1), max(int(width * scale), 1)  # truncated, not rounded
        scaled = resize_to(sample, *small, method) if scale != 1 else sample
        new_height, new_width = scaled.image.shape[:2]
        top, left = (
            round((canvas - new) / 2 - 0.1) for canvas, new in zip(shape, small, strict=True)
        )
        placed = letterbox_onto(scaled, shape, top=top, left=left, grey=GREY)
        return placed, LetterboxTransform(
            new_width / width, new_height / height, left, top, height, width
        )
