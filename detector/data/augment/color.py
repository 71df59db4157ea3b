"""Colour jitter in HSV space, by lookup tables."""

from dataclasses import dataclass

import cv2
import numpy as np

from detector.data.augment.geometry import GREY, Region
from detector.structures import Sample

_BYTES = np.arange(256)


@dataclass(frozen=True, slots=True)
class HSV:
    """Factors on hue (cyclic), saturation and value; 1 changes nothing."""

    hue: float = 1.0
    saturation: float = 1.0
    value: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator, *, h: float, s: float, v: float) -> "HSV":
        """1 + uniform(-1, 1) * gain for each."""
        hue, saturation, value = rng.uniform(-1, 1, 3).tolist()
        return cls(1 + hue * h, 1 + saturation * s, 1 + value * v)

    def apply(self, sample: Sample, within: Region | None = None) -> Sample:
        """The sample with changed colours.

        Outside `within` the image has to be uniformly `GREY`: that colour is computed only once.
        """
        if (self.hue, self.saturation, self.value) == (1.0, 1.0, 1.0):
            return sample
        image = sample.image
        x1, y1, x2, y2 = within or (0, 0, image.shape[1], image.shape[0])
        if (x2 - x1) * (y2 - y1) > 0.8 * image.shape[0] * image.shape[1]:
            changed = self._jitter(image)
        else:
            changed = np.empty_like(image)
            changed[:] = self._jitter(np.full((1, 1, 3), GREY, np.uint8))[0, 0, 0]  # a grey, too
            if x1 < x2 and y1 < y2:
                changed[y1:y2, x1:x2] = self._jitter(image[y1:y2, x1:x2])
        return Sample(
            changed, sample.boxes_xyxy, sample.labels, sample.image_id, sample.ignore_xyxy
        )

    def _jitter(self, image: np.ndarray) -> np.ndarray:
        """Changes the colours of an image, uint8 [H, W, 3], RGB."""
        x = _BYTES
        tables = [  # OpenCV's hue runs from 0 to 179
            (x * self.hue) % 180,
            np.minimum(x * self.saturation, 255),
            np.minimum(x * self.value, 255),
        ]
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        planes = [  # one call per plane is a quarter faster than one with three tables
            cv2.LUT(plane, table.astype(np.uint8))
            for plane, table in zip(cv2.split(hsv), tables, strict=True)
        ]
        return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB)
