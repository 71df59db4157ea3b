"""What is mixed into a finished sample, or covers part of it: CutMix, MixUp, pasted boxes, erasing.

Each is drawn, then applied; both samples have one size.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from detector.boxes import box_sizes, clip_boxes
from detector.structures import Sample

# share of a box's area that has to stay in sight under, or within, a pasted region; less is hard to
# name even for a person. Our choice: no paper gives one
LEAST_VISIBLE = 0.3
LEAST_SIDE = 2.0  # px, as for what a crop leaves


def occlude(boxes_xyxy: np.ndarray, cover_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a rectangle laid over boxes leaves of them.

    Args:
        boxes_xyxy: [n, 4], pixels.
        cover_xyxy: [4].

    Returns:
        The upright boxes around what is still seen [n, 4], and the share of each area that is [n];
        a box that is wholly covered keeps its corners, with share 0.
    """
    x1, y1, x2, y2 = cover_xyxy
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    both = np.minimum(high, [x2, y2]) - np.maximum(low, [x1, y1])  # [n, 2]
    area = np.maximum((high - low).prod(1), np.finfo(np.float32).tiny)
    share = 1 - both.clip(min=0).prod(1) / area
    seen = boxes_xyxy.copy()
    for axis, (start, end) in enumerate(((x1, x2), (y1, y2))):
        # only a cover from border to border across the other axis takes a strip off
        other = 1 - axis
        across = (cover_xyxy[other] <= low[:, other]) & (cover_xyxy[2 + other] >= high[:, other])
        strip = across & (both[:, axis] > 0) & (share > 0)
        first, last = strip & (start <= low[:, axis]), strip & (end >= high[:, axis])
        seen[first, axis], seen[last, 2 + axis] = end, start
    return seen, share


def _select_visible(boxes_xyxy: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mask [n] of boxes with enough in sight."""
    return (share >= LEAST_VISIBLE) & (box_sizes(boxes_xyxy) > LEAST_SIDE).all(1)


def _remove_covered(sample: Sample, cover_xyxy: np.ndarray) -> Sample:
    """The sample without the boxes, and the parts of boxes, below a rectangle; same pixels."""
    seen, share = occlude(sample.boxes_xyxy, cover_xyxy)
    kept = _select_visible(seen, share)
    ignore, ignore_share = occlude(sample.ignore_xyxy, cover_xyxy)
    return replace(
        sample,
        boxes_xyxy=seen[kept],
        labels=sample.labels[kept],
        ignore_xyxy=ignore[ignore_share > 0],
    )


def _append_boxes(sample: Sample, image: np.ndarray, *others: Sample) -> Sample:
    """The sample with this image and the boxes of the others, too."""
    all_of = (sample, *others)
    return replace(
        sample,
        image=image,
        boxes_xyxy=np.concatenate([each.boxes_xyxy for each in all_of]),
        labels=np.concatenate([each.labels for each in all_of]),
        ignore_xyxy=np.concatenate([each.ignore_xyxy for each in all_of]),
    )


@dataclass(frozen=True, slots=True)
class CutMix:
    """A region of another sample in the place of this one's; pixels.

    Source: Yun et al., "CutMix", 2019, with boxes in the place of mixed labels; the sides of the
    region as darknet draws them.
    """

    x1: int
    y1: int
    x2: int
    y2: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, height: int, width: int) -> "CutMix":
        """Each side uniform in 0.3 .. 0.8 of the image's, anywhere inside."""
        w, h = (round(side * rng.uniform(0.3, 0.8)) for side in (width, height))
        x, y = (int(rng.integers(0, room, endpoint=True)) for room in (width - w, height - h))
        return cls(x, y, x + w, y + h)

    def apply(self, sample: Sample, other: Sample) -> Sample:
        """Both samples' boxes, where enough of them is in sight."""
        region = np.array([self.x1, self.y1, self.x2, self.y2], np.float32)
        image = sample.image.copy()
        inside = slice(self.y1, self.y2), slice(self.x1, self.x2)
        image[inside] = other.image[inside]
        return _append_boxes(_remove_covered(sample, region), image, _crop_boxes(other, region))


def _crop_boxes(sample: Sample, region_xyxy: np.ndarray) -> Sample:
    """The boxes within a region, cut at its borders; same pixels."""
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
    """Two images blended, the boxes of both. Source: Zhang et al., "mixup", 2018.

    Attributes:
        share: weight of the first image; the other one's is 1 - share.
    """

    share: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "MixUp":
        """Beta(8, 8), as the PyTorch recipes of YOLOv4 draw it: near one half."""
        return cls(float(rng.beta(8.0, 8.0)))

    def apply(self, sample: Sample, other: Sample) -> Sample:
        """The blend; a box counts in full, however faint its object is."""
        image = cv2.addWeighted(sample.image, self.share, other.image, 1 - self.share, 0)
        return _append_boxes(sample, image, other)


@dataclass(frozen=True, slots=True)
class Paste:
    """Objects of another image, each cut out with its box and pasted where it hides least.

    After Dwibedi et al., "Cut, Paste and Learn", 2017, and Ghiasi et al., "Simple Copy-Paste", 2021;
    boxes in the place of masks.

    Attributes:
        objects: (number of the donor's box, left, top), in pixels of the sample.
    """

    objects: tuple[tuple[int, int, int], ...]

    MOST = 5  # objects of one donor
    TRIES = 20  # places to choose from
    SIDES = (8, 0.5)  # of an object: from 8 px to half of the image's side

    @classmethod
    def draw(cls, rng: np.random.Generator, sample: Sample, donor: Sample) -> "Paste":
        """Up to five of the donor's objects, each at the freest of twenty random places."""
        height, width = sample.image.shape[:2]
        taken = sample.boxes_xyxy
        objects = []
        crops = _round_outward(donor)
        for number in rng.permutation(len(crops))[: cls.MOST].tolist():
            w, h = box_sizes(crops)[number].tolist()
            least, most = cls.SIDES
            if min(w, h) < least or w > width * most or h > height * most:
                continue
            corners = rng.integers(0, [width - w, height - h], (cls.TRIES, 2), endpoint=True)
            places = np.concatenate([corners, corners + np.array([w, h])], 1)
            hidden = [(1 - occlude(taken, place)[1]).sum() for place in places]
            x, y = corners[int(np.argmin(hidden))].tolist()
            objects.append((number, x, y))
            taken = np.concatenate([taken, np.array([[x, y, x + w, y + h]], np.float32)])
        return cls(tuple(objects))

    def apply(self, sample: Sample, donor: Sample) -> Sample:
        """The sample with the objects; boxes below, of which too little is seen, are dropped."""
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
    """The boxes grown to whole pixels of the image, int64 [n, 4]."""
    height, width = sample.image.shape[:2]
    low, high = np.floor(sample.boxes_xyxy[:, :2]), np.ceil(sample.boxes_xyxy[:, 2:])
    return clip_boxes(np.concatenate([low, high], 1), width, height).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Erase:
    """A rectangle of noise over the image; boxes stay. Source: Zhong et al., "Random Erasing", 2020.

    Attributes:
        x1, y1, x2, y2: pixels.
        noise: the seed of the noise.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    noise: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, height: int, width: int) -> "Erase":
        """An area of 2 .. 20 % of the image (the paper's best, 40 %, is for one object a picture).

        Its sides are in a ratio of 0.3 .. 1 / 0.3.
        """
        area = rng.uniform(0.02, 0.2) * height * width
        ratio = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        w = min(max(round(math.sqrt(area * ratio)), 1), width)
        h = min(max(round(math.sqrt(area / ratio)), 1), height)
        x, y = (int(rng.integers(0, room, endpoint=True)) for room in (width - w, height - h))
        return cls(x, y, x + w, y + h, int(rng.integers(2**32)))

    def apply(self, sample: Sample) -> Sample:
        """The sample with the rectangle."""
        image = sample.image.copy()
        hole = image[self.y1 : self.y2, self.x1 : self.x2]
        hole[:] = np.random.default_rng(self.noise).integers(0, 256, hole.shape, np.uint8)
        return replace(sample, image=image)
