"""Geometric augmentations: resize, letterbox, affine and perspective transforms, flips.

Coordinates are continuous: pixel i covers [i, i + 1], so a box [0, 0, W, H] is the whole image.
OpenCV's maps work on pixel centres; `_warp` shifts by the half pixel between the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from detector.boxes import box_sizes, clip_boxes, transform_boxes
from detector.structures import LetterboxTransform, Sample

GREY = 114  # padding outside the image, as published
DARKNET_GREY = 127  # darknet's letter_box pads with 0.5

Region = tuple[int, int, int, int]  # x1, y1, x2, y2 of a part of an image, pixels
Size = int | tuple[int, int]  # of an output image, pixels: of a square, or (height, width)


def height_and_width(size: Size) -> tuple[int, int]:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else size


def resize_to(sample: Sample, height: int, width: int, method: int) -> Sample:
    """Scales the sample to this size; `method` is an interpolation flag of OpenCV."""
    old = sample.image.shape[:2]
    if (height, width) == old:
        return sample
    return replace_image(
        sample, cv2.resize(sample.image, (width, height), interpolation=method), old
    )


def replace_image(sample: Sample, image: np.ndarray, old: tuple[int, int]) -> Sample:
    """The sample with its image resized from `old` (height, width), and its boxes scaled likewise."""
    if image.shape[:2] == old:
        return sample if sample.image is image else replace(sample, image=image)
    factor = box_scale_factors(old, image.shape)
    boxes, ignore = sample.boxes_xyxy * factor, sample.ignore_xyxy * factor
    return Sample(image, boxes, sample.labels, sample.image_id, ignore)


def box_scale_factors(old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Factors [4], float32, for boxes of an image resized from `old` to `new` (height, width)."""
    return np.array([new[1] / old[1], new[0] / old[0]] * 2, np.float32)


def resize_to_fit(sample: Sample, size: Size) -> Sample:
    """Scales the sample up or down to the largest that fits into `size`."""
    old = sample.image.shape[:2]
    return replace_image(sample, resize_image_to_fit(sample.image, height_and_width(size)), old)


def resize_image_to_fit(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scales an image up or down to the largest that fits into `shape`, (height, width)."""
    height, width = image.shape[:2]
    scale = min(shape[0] / height, shape[1] / width)
    if scale == 1:
        return image
    # Down to one half, bilinear interpolation still uses every pixel and is several times faster than
    # area averaging, which keeps thin objects at smaller scales; both are exact at the borders.
    method = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    new = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(image, new, interpolation=method)


def shrink_image(image: np.ndarray, max_size: int | None) -> np.ndarray:
    """Scales an image down to fit into a square of `max_size` pixels if it is larger."""
    if max_size is None or max(image.shape[:2]) <= max_size:
        return image
    return resize_image_to_fit(image, (max_size, max_size))


def shrink_shapes(sizes: np.ndarray, max_size: int) -> np.ndarray:
    """Height and width of what `shrink_image` makes of images of these `sizes`, int64 [n, 2]."""
    scale = np.minimum(max_size / np.maximum(sizes.max(axis=1, keepdims=True), 1), 1.0)
    return np.maximum(np.round(sizes * scale), 1).astype(np.int64)


def letterbox_onto(
    sample: Sample, shape: tuple[int, int], *, top: int, left: int, grey: int
) -> Sample:
    """Places the sample, not scaled, on a grey canvas (height, width) at (left, top)."""
    height, width = sample.image.shape[:2]
    canvas = np.full((*shape, 3), grey, np.uint8)
    canvas[top : top + height, left : left + width] = sample.image
    shift = np.array([left, top] * 2, np.float32)
    return replace(
        sample,
        image=canvas,
        boxes_xyxy=sample.boxes_xyxy + shift,
        ignore_xyxy=sample.ignore_xyxy + shift,
    )


def letterbox(sample: Sample, size: Size, *, grey: int = GREY) -> tuple[Sample, LetterboxTransform]:
    """Scales and centres the sample on a grey canvas of this size.

    Returns:
        The sample, and the transform back to pixels of the original image.
    """
    height, width = sample.image.shape[:2]
    shape = height_and_width(size)
    scaled = resize_to_fit(sample, shape)
    new_height, new_width = scaled.image.shape[:2]
    left, top = (shape[1] - new_width) // 2, (shape[0] - new_height) // 2
    placed = letterbox_onto(scaled, shape, top=top, left=left, grey=grey)
    return placed, LetterboxTransform(
        new_width / width, new_height / height, left, top, height, width
    )


@dataclass(frozen=True, slots=True)
class Affine:
    """Zoom, rotation, shear, shift and perspective about the centre of the image; see `draw`.

    Attributes:
        zoom: factor.
        degrees: counter-clockwise rotation.
        shear_x, shear_y: degrees.
        shift_x, shift_y: of the centre, as a fraction of the output's width and height.
        tilt_x, tilt_y: perspective; the right and the lower edge are 1 + tilt times as far away as the
            centre, the left and the upper one 1 - tilt times. The sum of their magnitudes is below 1.
    """

    zoom: float = 1.0
    degrees: float = 0.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        *,
        scale: float,
        translate: float,
        degrees: float,
        shear: float,
    ) -> "Affine":
        """Draws uniformly: zoom in 1 +- scale, and shift, rotation and shear in +- their limits."""
        zoom = rng.uniform(1 - scale, 1 + scale)
        angle, shear_x, shear_y = rng.uniform(-1, 1, 3).tolist()
        shift_x, shift_y = rng.uniform(-translate, translate, 2).tolist()
        return cls(zoom, angle * degrees, shear_x * shear, shear_y * shear, shift_x, shift_y)

    def add_perspective(self, rng: np.random.Generator, perspective: float) -> "Affine":
        """The same transform with both tilts drawn uniformly from +- perspective."""
        tilt_x, tilt_y = rng.uniform(-perspective, perspective, 2)
        return replace(self, tilt_x=tilt_x, tilt_y=tilt_y)

    def matrix(self, height: int, width: int, size: Size) -> np.ndarray:
        """[3, 3] from pixels of a height x width image to pixels of the result."""
        cosine, sine = (f(math.radians(self.degrees)) * self.zoom for f in (math.cos, math.sin))
        shear_x, shear_y = (math.tan(math.radians(a)) for a in (self.shear_x, self.shear_y))
        new_height, new_width = height_and_width(size)
        center_x, center_y = width / 2, height / 2
        # p' = target + linear @ (p - center) / distance; distance = 1 + tilt . (p - center);
        # linear = shear @ rotation, row by row in Python floats: ten times as fast as arrays
        tilt_x, tilt_y = self.tilt_x / center_x, self.tilt_y / center_y
        offset = 1 - (tilt_x * center_x + tilt_y * center_y)
        rows = []
        for target, a, b in (
            (new_width * (0.5 + self.shift_x), cosine - shear_x * sine, sine + shear_x * cosine),
            (new_height * (0.5 + self.shift_y), shear_y * cosine - sine, shear_y * sine + cosine),
        ):
            constant = target * offset - (a * center_x + b * center_y)
            rows.append((a + target * tilt_x, b + target * tilt_y, constant))
        return np.array([*rows, (tilt_x, tilt_y, offset)])

    def covered_region(self, height: int, width: int, size: Size) -> Region:
        """The region of the result that a height x width image covers; the rest is grey."""
        shape = height_and_width(size)
        return _covered_region(self.matrix(height, width, shape), (height, width), shape)

    def visible_region(self, height: int, width: int, size: Size) -> Region:
        """The region of a height x width image that the result shows."""
        (a, b, c), (d, e, f), (g, h, _) = self.matrix(height, width, size).tolist()
        scale = a * e - b * d
        if g or h or abs(scale) < 1e-9:
            return 0, 0, width, height
        new_height, new_width = height_and_width(size)
        # the inverse of (a, b; d, e) is (e, -b; -d, a) / scale
        a, b, d, e = e / scale, -b / scale, -d / scale, a / scale
        x1, x2 = _span(a, b, -a * c - b * f, new_width, new_height, width)
        y1, y2 = _span(d, e, -d * c - e * f, new_width, new_height, height)
        return x1, y1, x2, y2

    def apply(self, sample: Sample, size: Size) -> Sample:
        """Warps the sample into one of this size and drops boxes that are barely visible.

        A box is kept if it is wider and higher than 2 px, over a tenth of its (zoomed) area is visible
        and its aspect ratio is below 20, as published.
        """
        height, width = sample.image.shape[:2]
        shape = height_and_width(size)
        matrix = self.matrix(height, width, shape)
        labels, ignore = sample.labels, sample.ignore_xyxy
        clipped = boxes = transform_boxes(sample.boxes_xyxy, matrix)
        if len(boxes):
            clipped = clip_boxes(boxes, shape[1], shape[0])
            kept = _select_recognisable(boxes, clipped)
            clipped, labels = clipped[kept], labels[kept]
        if len(ignore):
            ignore = clip_boxes(transform_boxes(ignore, matrix), shape[1], shape[0])
            ignore = ignore[(box_sizes(ignore) > 0).all(1)]
        image = _warp(sample.image, matrix, shape)
        return Sample(image, clipped, labels, sample.image_id, ignore)


def _select_recognisable(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mask [n] of boxes that are still recognisable after a crop; both [n, 4], pixels of the result."""
    width, height = box_sizes(after).T
    old_width, old_height = box_sizes(before).T
    short, long = np.minimum(width, height), np.maximum(width, height)
    visible = width * height > 0.1 * old_width * old_height
    return (short > 2) & visible & (long < 20 * short)


def _warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    if image.shape[:2] == shape and (a, b, c, d, e, f, g, h, i) == (1, 0, 0, 0, 1, 0, 0, 0, 1):
        return image
    # from pixel edges to pixel centres: half a pixel forward before, half a pixel back after the map
    i += 0.5 * g + 0.5 * h
    c += 0.5 * a + 0.5 * b - 0.5 * i
    f += 0.5 * d + 0.5 * e - 0.5 * i
    about_centers = np.array(
        [(a - 0.5 * g, b - 0.5 * h, c), (d - 0.5 * g, e - 0.5 * h, f), (g, h, i)]
    )
    height, width = shape
    grey = (GREY,) * 3
    if g or h:
        return cv2.warpPerspective(image, about_centers, (width, height), borderValue=grey)
    x1, y1, x2, y2 = _covered_region(matrix, image.shape, shape)
    if (x2 - x1) * (y2 - y1) == height * width:
        return cv2.warpAffine(image, about_centers[:2], (width, height), borderValue=grey)
    result = np.full((height, width, 3), GREY, np.uint8)
    if x1 < x2 and y1 < y2:
        about_centers[:2, 2] -= x1, y1
        part = cv2.warpAffine(image, about_centers[:2], (x2 - x1, y2 - y1), borderValue=grey)
        result[y1:y2, x1:x2] = part
    return result


def _covered_region(matrix: np.ndarray, old: Sequence[int], shape: tuple[int, int]) -> Region:
    """A region of a result of `shape` that contains all of a warped image of `old` (height, width).

    A mosaic that is zoomed out covers a fraction of the result: warping only that saves time.
    """
    (a, b, c), (d, e, f), (g, h, _) = matrix.tolist()
    if g or h:
        return 0, 0, shape[1], shape[0]
    x1, x2 = _span(a, b, c, old[1], old[0], shape[1])
    y1, y2 = _span(d, e, f, old[1], old[0], shape[0])
    return x1, y1, x2, y2


def _span(a: float, b: float, c: float, width: int, height: int, limit: int) -> tuple[int, int]:
    """The range of a x + b y + c within 0..limit, for x in 0..width, y in 0..height."""
    least = c + min(a, 0) * width + min(b, 0) * height
    most = c + max(a, 0) * width + max(b, 0) * height
    margin = 2  # px, for the interpolation
    first = min(max(math.floor(least) - margin, 0), limit)
    return first, max(min(math.ceil(most) + margin, limit), first)


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors left-right and up-down."""

    left_right: bool = False
    up_down: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, *, left_right: float, up_down: float) -> "Flip":
        """Each with its probability."""
        first, second = rng.random(2)
        return cls(bool(first < left_right), bool(second < up_down))

    def apply(self, sample: Sample) -> Sample:
        """Mirrors the sample; applied twice it is the identity."""
        image = sample.image
        height, width = image.shape[:2]
        if self.left_right:
            image = cv2.flip(image, 1)  # 38 times faster than a negative stride made contiguous
        if self.up_down:
            image = cv2.flip(image, 0)
        boxes, ignore = (
            self._flip_boxes(each, height, width)
            for each in (sample.boxes_xyxy, sample.ignore_xyxy)
        )
        return Sample(image, boxes, sample.labels, sample.image_id, ignore)

    def _flip_boxes(self, boxes_xyxy: np.ndarray, height: int, width: int) -> np.ndarray:
        if not (len(boxes_xyxy) and (self.left_right or self.up_down)):
            return boxes_xyxy
        flipped = boxes_xyxy.copy()
        if self.left_right:
            flipped[:, 0::2] = width - boxes_xyxy[:, 2::-2]
        if self.up_down:
            flipped[:, 1::2] = height - boxes_xyxy[:, 3::-2]
        return flipped
