"""Boxes of an index in pixels of scaled images."""

import numpy as np

from detector.boxes import box_sizes
from detector.data.augment.geometry import shrink_shapes
from detector.data.store.index import Index


def letterboxed_box_sizes(index: Index, size: int) -> np.ndarray:
    """Width and height of every box, float64 [m, 2], once its image's long side is `size` pixels."""
    scale = size / index.sizes.max(1, initial=1)  # [n]
    sizes = box_sizes(index.boxes_xyxy).astype(np.float64)
    return sizes * scale[index.box_image_numbers(), None]


def shrink_boxes(index: Index, max_size: int) -> np.ndarray:
    """All boxes, float32 [m, 4], in pixels of images that `shrink_image` has fitted to `max_size`."""
    shapes = shrink_shapes(index.sizes, max_size)
    if np.array_equal(shapes, index.sizes):
        return index.boxes_xyxy
    scale = (shapes / np.maximum(index.sizes, 1))[:, ::-1].astype(np.float32)  # width, height
    return index.boxes_xyxy * np.tile(scale, 2)[index.box_image_numbers()]
