"""Mosaic: four images on one canvas. Source: Bochkovskiy et al., "YOLOv4", 2020, section 3.3."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.boxes import clip_boxes, sides
from detector.data.geometry import GREY, resize_long_side
from detector.structures import Sample


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Where the four tiles meet: a point of the 2S x 2S canvas, in pixels."""

    x: int
    y: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, size: int) -> "Mosaic":
        """Each coordinate uniform in [S/2, 3S/2], S = size."""
        x, y = rng.integers(size // 2, size + size // 2, 2, endpoint=True)
        return cls(int(x), int(y))

    def apply(self, samples: Sequence[Sample], size: int) -> Sample:
        """One sample of 2S x 2S pixels, S = size.

        The images, scaled to a long side of S, are placed top-left, top-right, bottom-left and
        bottom-right, each with a corner at the meeting point; what leaves the canvas is cut. A box is
        kept while any of it is in sight: the affine map that follows decides what is too little.
        """
        assert len(samples) == 4, f"a mosaic has 4 tiles, not {len(samples)}"
        side = 2 * size
        canvas = np.full((side, side, 3), GREY, np.uint8)
        boxes, labels, ignore = [], [], []
        for number, sample in enumerate(samples):
            tile = resize_long_side(sample, size)
            height, width = tile.image.shape[:2]
            left = self.x - width if number % 2 == 0 else self.x
            top = self.y - height if number < 2 else self.y
            x1, y1 = max(left, 0), max(top, 0)
            x2, y2 = min(left + width, side), min(top + height, side)
            canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]

            shift = np.array([left, top] * 2, np.float32)
            moved = clip_boxes(tile.boxes_xyxy + shift, side, side)
            visible = (sides(moved) > 0).all(1)
            boxes.append(moved[visible])
            labels.append(tile.labels[visible])
            crowds = clip_boxes(tile.ignore_xyxy + shift, side, side)
            ignore.append(crowds[(sides(crowds) > 0).all(1)])
        return replace(
            samples[0],
            image=canvas,
            boxes_xyxy=np.concatenate(boxes),
            labels=np.concatenate(labels),
            ignore_xyxy=np.concatenate(ignore),
        )
