"""Colour jitter in HSV space, by lookup tables."""

from dataclasses import dataclass

import cv2
import numpy as np

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

    def apply(self, sample: Sample) -> Sample:
        """The sample in other colours; boxes as they were."""
        if (self.hue, self.saturation, self.value) == (1.0, 1.0, 1.0):
            return sample
        x = _BYTES
        tables = [  # OpenCV's hue runs from 0 to 179
            (x * self.hue) % 180,
            np.minimum(x * self.saturation, 255),
            np.minimum(x * self.value, 255),
        ]
        hsv = cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV)
        planes = [  # a plane each is a quarter faster than one call with three tables
            cv2.LUT(plane, table.astype(np.uint8))
            for plane, table in zip(cv2.split(hsv), tables, strict=True)
        ]
        image = cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB)
        return Sample(image, sample.boxes_xyxy, sample.labels, sample.image_id, sample.ignore_xyxy)
