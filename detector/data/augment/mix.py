"""CutMix, MixUp, paste and erase: they combine a sample with another one or cover part of it.

Both samples have the same size.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from detector.boxes import box_sizes, clip_boxes
from detector.structures import Sample

# The fraction of a box's area that has to stay visible under, or within, a pasted region; with less,
# objects are hard to recognise even for a person. Our choice: no paper gives one.
MIN_VISIBLE = 0.3
MIN_BOX_SIZE = 2.0  # px, width and height, as in `Affine.apply`


def occlude(boxes_xyxy: np.ndarray, cover_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes which part of each box stays visible under a rectangle.

    Args:
        boxes_xyxy: [n, 4], pixels.
        cover_xyxy: [4].

    Returns:
        The bounding boxes of the visible parts [n, 4], and the visible fraction of each area [n]; a
        box that is wholly covered keeps its corners, with fraction 0.
    """
    x1, y1, x2, y2 = cover_xyxy
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    overlap = np.minimum(high, [x2, y2]) - np.maximum(low, [x1, y1])  # [n, 2]
    area = np.maximum((high - low).prod(1), np.finfo(np.float32).tiny)
    share = 1 - overlap.clip(min=0).prod(1) / area
    visible = boxes_xyxy.copy()
    for axis, (start, end) in enumerate(((x1, x2), (y1, y2))):
        # only a cover that spans the box along the other axis makes it smaller
        other = 1 - axis
        across = (cover_xyxy[other] <= low[:, other]) & (cover_xyxy[2 + other] >= high[:, other])
        strip = across & (overlap[:, axis] > 0) & (share > 0)
        first, last = strip & (start <= low[:, axis]), strip & (end >= high[:, axis])
        visible[first, axis], visible[last, 2 + axis] = end, start
    return visible, share


def _select_visible(boxes_xyxy: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mask [n] of the boxes that are visible enough to be kept."""
    return (share >= MIN_VISIBLE) & (box_sizes(boxes_xyxy) > MIN_BOX_SIZE).all(1)


def _remove_covered(sample: Sample, cover_xyxy: np.ndarray) -> Sample:
    """Removes boxes, and parts of boxes, that a rectangle covers; the image is unchanged."""
    visible, share = occlude(sample.boxes_xyxy, cover_xyxy)
    kept = _select_visible(visible, share)
    ignore, ignore_share = occlude(sample.ignore_xyxy, cover_xyxy)
    return replace(
        sample,
        boxes_xyxy=visible[kept],
        labels=sample.labels[kept],
        ignore_xyxy=ignore[ignore_share > 0],
    )


def _append_boxes(sample: Sample, image: np.ndarray, *others: Sample) -> Sample:
    """The sample with this image, and with the boxes of the others added."""
    samples = (sample, *others)
    return replace(
        sample,
        image=image,
        boxes_xyxy=np.concatenate([each.boxes_xyxy for each in samples]),
        labels=np.concatenate([each.labels for each in samples]),
        ignore_xyxy=np.concatenate([each.ignore_xyxy for each in samples]),
    )


@dataclass(frozen=True, slots=True)
class CutMix:
    """Replaces a region by the same region of another sample; pixels.

    Source: Yun et al., "CutMix", 2019; for detectors with boxes in place of mixed labels.
    """

    x1: int
    y1: int
    x2: int
    y2: int

    @classmethod
    def draw(
        cls, rng: np.random.Generator, *, height: int, width: int, alpha: float = 0.0
    ) -> "CutMix":
        """Draws width and height uniformly in 0.3 .. 0.8 of the image's, at any place inside, as darknet.

        With `alpha` as in the paper: the region has the image's aspect ratio and the area 1 -
        lambda, from Beta(alpha, alpha); its centre is anywhere in the image, to which it is
        clipped.
        """
        if alpha:
            side = math.sqrt(1 - rng.beta(alpha, alpha))
            w, h = int(width * side), int(height * side)
            x, y = int(rng.integers(width)) - w // 2, int(rng.integers(height)) - h // 2
            return cls(max(x, 0), max(y, 0), min(x + w, width), min(y + h, height))
        w, h = (round(length * rng.uniform(0.3, 0.8)) for length in (width, height))
        x, y = (int(rng.integers(0, most, endpoint=True)) for most in (width - w, height - h))
        return cls(x, y, x + w, y + h)

    def apply(self, sample: Sample, other: Sample) -> Sample:
        """The combined image, with those boxes of both samples that are visible enough."""
        region = np.array([self.x1, self.y1, self.x2, self.y2], np.float32)
        image = sample.image.copy()
        inside = slice(self.y1, self.y2), slice(self.x1, self.x2)
        image[inside] = other.image[inside]
        return _append_boxes(_remove_covered(sample, region), image, _crop_boxes(other, region))


def _crop_boxes(sample: Sample, region_xyxy: np.ndarray) -> Sample:
    """Clips the boxes to a region and drops those outside; the image is unchanged."""
    low, high = np.tile(region_xyxy[:2], 2), np.tile(region_xyxy[2:], 2)
    boxes = sample.boxes_xyxy.clip(low, high)
    ignore = sample.ignore_xyxy.clip(low, high)
    areas = np.maximum(box_sizes(sample.boxes_xyxy).prod(1), np.finfo(np.float32).tiny)
    kept = _select_visible(boxes, box_sizes(boxes).prod(1) / areas)
    return replace(
        sample,
        boxes_xyxy=boxes[kept],
        labels=sample.labels[kept],
        ignore_xyxy=ignore[(box_sizes(ignore) > 0).all(1)],
    )


@dataclass(frozen=True, slots=True)
class MixUp:
    """Blends two images and keeps the boxes of both. Source: Zhang et al., "mixup", 2018.

    Attributes:
        share: weight of the first image; the other has 1 - share.
    """

    share: float

    @classmethod
    def draw(cls, rng: np.random.Generator, alpha: float = 8.0) -> "MixUp":
        """Draws from Beta(alpha, alpha); 8, of YOLOv4's PyTorch recipes, gives values near one half."""
        return cls(float(rng.beta(alpha, alpha)))

    def apply(self, sample: Sample, other: Sample) -> Sample:
        """The blended image; every box keeps its full weight."""
        image = cv2.addWeighted(sample.image, self.share, other.image, 1 - self.share, 0)
        return _append_boxes(sample, image, other)


@dataclass(frozen=True, slots=True)
class Paste:
    """Pastes objects of another image, cut out by their boxes, where they cover the least.

    After Dwibedi et al., "Cut, Paste and Learn", 2017, and Ghiasi et al., "Simple Copy-Paste", 2021;
    with boxes in place of masks.

    Attributes:
        objects: (number of the donor's box, left, top), pixels of the sample.
    """

    objects: tuple[tuple[int, int, int], ...]

    MAX_OBJECTS = 5  # of one donor
    TRIES = 20  # random places per object
    MIN_SIZE = 8  # px, of an object's width and height
    MAX_SHARE = 0.5  # of the image's width and height

    @classmethod
    def draw(cls, rng: np.random.Generator, sample: Sample, donor: Sample) -> "Paste":
        """Draws up to `MAX_OBJECTS` objects, each at the place of `TRIES` that covers the least."""
        height, width = sample.image.shape[:2]
        taken = sample.boxes_xyxy
        objects = []
        crops = _round_outward(donor)
        for number in rng.permutation(len(crops))[: cls.MAX_OBJECTS].tolist():
            w, h = box_sizes(crops)[number].tolist()
            too_large = w > width * cls.MAX_SHARE or h > height * cls.MAX_SHARE
            if min(w, h) < cls.MIN_SIZE or too_large:
                continue
            corners = rng.integers(0, [width - w, height - h], (cls.TRIES, 2), endpoint=True)
            places = np.concatenate([corners, corners + np.array([w, h])], 1)
            hidden = [(1 - occlude(taken, place)[1]).sum() for place in places]
            x, y = corners[int(np.argmin(hidden))].tolist()
            objects.append((number, x, y))
            taken = np.concatenate([taken, np.array([[x, y, x + w, y + h]], np.float32)])
        return cls(tuple(objects))

    def apply(self, sample: Sample, donor: Sample) -> Sample:
        """The sample with the objects pasted; drops boxes that they cover too much."""
        image, crops = sample.image.copy(), _round_outward(donor)
        for number, left, top in self.objects:
            x1, y1, x2, y2 = crops[number].tolist()
            place = np.array([[left, top, left + x2 - x1, top + y2 - y1]], np.float32)
            image[top : top + y2 - y1, left : left + x2 - x1] = donor.image[y1:y2, x1:x2]
            shift = np.array([left - x1, top - y1] * 2, np.float32)
            crop = replace(
                donor,
                boxes_xyxy=donor.boxes_xyxy[number : number + 1] + shift,
                labels=donor.labels[number : number + 1],
                ignore_xyxy=np.zeros((0, 4), np.float32),
            )
            sample = _append_boxes(_remove_covered(sample, place[0]), image, crop)
        return sample


def _round_outward(sample: Sample) -> np.ndarray:
    """Rounds boxes outward to whole pixels of the image, int64 [n, 4]."""
    height, width = sample.image.shape[:2]
    low, high = np.floor(sample.boxes_xyxy[:, :2]), np.ceil(sample.boxes_xyxy[:, 2:])
    return clip_boxes(np.concatenate([low, high], 1), width, height).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Erase:
    """Covers a rectangle with noise; boxes are kept. Source: Zhong et al., "Random Erasing", 2020.

    Attributes:
        x1, y1, x2, y2: of the rectangle, pixels.
        noise: seed of the noise.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    noise: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, height: int, width: int) -> "Erase":
        """Draws an area of 2 .. 20 % of the image, of aspect ratio 0.3 .. 1 / 0.3.

        The paper's best value, 40 %, is for images with a single object.
        """
        area = rng.uniform(0.02, 0.2) * height * width
        ratio = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        w = min(max(round(math.sqrt(area * ratio)), 1), width)
        h = min(max(round(math.sqrt(area / ratio)), 1), height)
        x, y = (int(rng.integers(0, most, endpoint=True)) for most in (width - w, height - h))
        return cls(x, y, x + w, y + h, int(rng.integers(2**32)))

    def apply(self, sample: Sample) -> Sample:
        """The sample with the rectangle of noise."""
        image = sample.image.copy()
        hole = image[self.y1 : self.y2, self.x1 : self.x2]
        hole[:] = np.random.default_rng(self.noise).integers(0, 256, hole.shape, np.uint8)
        return replace(sample, image=image)
