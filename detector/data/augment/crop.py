"""Which part of an image a classifier sees; a crop is drawn in the image's own pixels, then scaled."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from detector.data.augment.geometry import GREY

Shape = tuple[int, int]  # height, width, pixels
TRIES = 10  # of an area and a ratio; torchvision's


def cover(image: np.ndarray, shape: Shape) -> np.ndarray:
    """Scales an image, uint8 [H, W, 3], to the smallest that covers `shape`."""
    height, width = image.shape[:2]
    scale = max(shape[0] / height, shape[1] / width)
    new = max(round(height * scale), shape[0]), max(round(width * scale), shape[1])
    return _resize(image, new)


def crop_centre(image: np.ndarray, shape: Shape) -> np.ndarray:
    """The central part of `cover`, as in an evaluation."""
    covered = cover(image, shape)
    top, left = ((covered.shape[axis] - shape[axis]) // 2 for axis in (0, 1))
    return covered[top : top + shape[0], left : left + shape[1]]


def _resize(image: np.ndarray, shape: Shape) -> np.ndarray:
    height, width = image.shape[:2]
    if (height, width) == shape:
        return image
    smaller = shape[0] * shape[1] < height * width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, shape[::-1], interpolation=method)


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle that becomes the whole image; pixels of the image, and it may reach beyond it."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def draw_resized(
        cls,
        rng: np.random.Generator,
        shape: Shape,
        *,
        area: tuple[float, float],
        ratio: tuple[float, float],
    ) -> "Crop":
        """Draws a fraction of the image's area uniformly and the ratio width / height log-uniformly.

        After `TRIES` rectangles that do not fit, the largest central one of an allowed ratio. Source:
        Szegedy et al., "Going Deeper with Convolutions", 2015, section 6, as in torchvision's
        RandomResizedCrop.
        """
        height, width = shape
        low, high = math.log(ratio[0]), math.log(ratio[1])
        for _ in range(TRIES):
            pixels, shape_ratio = (
                rng.uniform(*area) * height * width,
                math.exp(rng.uniform(low, high)),
            )
            w, h = round(math.sqrt(pixels * shape_ratio)), round(math.sqrt(pixels / shape_ratio))
            if 0 < w <= width and 0 < h <= height:
                x, y = rng.integers(0, [width - w, height - h], endpoint=True).tolist()
                return cls(x, y, w, h)
        w = min(width, max(round(height * ratio[1]), 1))
        h = min(height, max(round(width / ratio[0]), 1))
        return cls((width - w) // 2, (height - h) // 2, w, h)

    @classmethod
    def draw_short_side(
        cls,
        rng: np.random.Generator,
        shape: Shape,
        new: Shape,
        *,
        zoom: tuple[float, float],
        ratio: tuple[float, float],
    ) -> "Crop":
        """Draws what a crop of `new` pixels shows once the shorter side has zoom * its size.

        As darknet's classifier: the shorter side is drawn uniformly, the image stretched by a ratio and
        cropped at any place; where the image is smaller than the crop, at any place within it. Differs in
        drawing the ratio log-uniformly.
        """
        height, width = shape
        stretch = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        scale = rng.uniform(*zoom) * max(new[0] / height, new[1] / width)
        w, h = max(round(new[1] / (scale * stretch)), 1), max(round(new[0] / scale), 1)
        x, y = (
            int(rng.integers(min(0, free), max(0, free), endpoint=True))
            for free in (width - w, height - h)
        )
        return cls(x, y, w, h)

    @classmethod
    def draw_padded(cls, rng: np.random.Generator, shape: Shape, padding: int) -> "Crop":
        """Draws a shift of up to `padding` pixels in both directions; the size is kept.

        Source: He et al., "Deep Residual Learning", 2016, section 4.2.
        """
        x, y = rng.integers(-padding, padding, 2, endpoint=True).tolist()
        return cls(x, y, shape[1], shape[0])

    def apply(self, image: np.ndarray, shape: Shape, *, fill: int = GREY) -> np.ndarray:
        """Crops and scales an image to `shape`; what is outside of the image is filled with a grey."""
        height, width = image.shape[:2]
        x2, y2 = self.x + self.width, self.y + self.height
        inside = image[max(self.y, 0) : y2, max(self.x, 0) : x2]
        if self.x < 0 or self.y < 0 or x2 > width or y2 > height:
            borders = (max(-self.y, 0), max(y2 - height, 0), max(-self.x, 0), max(x2 - width, 0))
            grey = (fill,) * 3
            inside = cv2.copyMakeBorder(inside, *borders, cv2.BORDER_CONSTANT, value=grey)
        return _resize(inside, shape)
