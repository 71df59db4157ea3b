"""Sizes of boxes as training sees them, and whose they are."""

import numpy as np

from detector.boxes import sides
from detector.data.augment.geometry import shrunk_shapes
from detector.data.store.index import Index


def owners(index: Index) -> np.ndarray:
    """The image number of each box, int64 [m]."""
    return np.repeat(np.arange(len(index)), np.diff(index.starts))


def letterboxed_sizes(index: Index, size: int) -> np.ndarray:
    """Width and height of every box, float64 [m, 2], once its image's long side is `size` pixels."""
    scale = size / index.sizes.max(1, initial=1)  # [n]
    return sides(index.boxes_xyxy).astype(np.float64) * scale[owners(index), None]


def shrunk_boxes(index: Index, side: int) -> np.ndarray:
    """All boxes, float32 [m, 4], in pixels of images that `shrink` has made fit `side`."""
    shapes = shrunk_shapes(index.sizes, side)
    if np.array_equal(shapes, index.sizes):
        return index.boxes_xyxy
    scale = (shapes / np.maximum(index.sizes, 1))[:, ::-1].astype(np.float32)  # width, height
    return index.boxes_xyxy * np.tile(scale, 2)[owners(index)]
