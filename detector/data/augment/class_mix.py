"""Mixes of images of one class each; every part brings its class share.

The boxes of the parts are kept for pictures; the loss uses the shares only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from detector.data.augment.mix import CutMix, MixUp
from detector.structures import Sample

Shape = tuple[int, int]  # height, width, pixels


def make_class_sample(image: np.ndarray, label: int, image_id: int) -> Sample:
    """A sample of one class: its box is the whole image, its share 1."""
    height, width = image.shape[:2]
    return Sample(
        image=image,
        boxes_xyxy=np.array([[0, 0, width, height]], np.float32),
        labels=np.array([label], np.int64),
        image_id=image_id,
        ignore_xyxy=np.zeros((0, 4), np.float32),
        shares=np.ones(1, np.float32),
    )


def _join(
    samples: Sequence[Sample], image: np.ndarray, boxes: np.ndarray, shares: Sequence[float]
) -> Sample:
    return replace(
        samples[0],
        image=image,
        boxes_xyxy=boxes.astype(np.float32),
        labels=np.concatenate([each.labels for each in samples]),
        shares=np.array(shares, np.float32),
    )


@dataclass(frozen=True, slots=True)
class Quadrants:
    """Mosaic for classifiers: four images of full size, each shown in one quadrant, where it is.

    As in darknet's classifier, whose labels are weighted by area, too.

    Attributes:
        x, y: where the quadrants meet, pixels.
    """

    x: int
    y: int

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: Shape) -> "Quadrants":
        """Draws the meeting point uniformly in 20 .. 80 % of both axes."""
        x, y = (round(length * rng.uniform(0.2, 0.8)) for length in (shape[1], shape[0]))
        return cls(x, y)

    def apply(self, samples: Sequence[Sample]) -> Sample:
        """Four samples: upper left, upper right, lower left, lower right."""
        height, width = samples[0].image.shape[:2]
        x, y = self.x, self.y
        boxes = np.array([(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)])
        image = np.empty_like(samples[0].image)
        for (x1, y1, x2, y2), sample in zip(boxes.tolist(), samples, strict=True):
            image[y1:y2, x1:x2] = sample.image[y1:y2, x1:x2]
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return _join(samples, image, boxes, (areas / (height * width)).tolist())


def cut_classes(region: CutMix, sample: Sample, other: Sample) -> Sample:
    """CutMix of two samples of one class; the shares are those of the area."""
    height, width = sample.image.shape[:2]
    share = (region.x2 - region.x1) * (region.y2 - region.y1) / (height * width)
    image = sample.image.copy()
    inside = slice(region.y1, region.y2), slice(region.x1, region.x2)
    image[inside] = other.image[inside]
    boxes = np.array([(0, 0, width, height), (region.x1, region.y1, region.x2, region.y2)])
    return _join([sample, other], image, boxes, [1 - share, share])


def blend_classes(blend: MixUp, sample: Sample, other: Sample) -> Sample:
    """MixUp of two samples of one class; the shares are the weights of the images."""
    image = cv2.addWeighted(sample.image, blend.share, other.image, 1 - blend.share, 0)
    boxes = np.concatenate([sample.boxes_xyxy, other.boxes_xyxy])
    return _join([sample, other], image, boxes, [blend.share, 1 - blend.share])
