"""Gaussian noise on all pixels of an image."""

from dataclasses import dataclass, replace

import numpy as np

from detector.structures import Sample


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Adds independent normal numbers to every value; boxes are kept.

    Attributes:
        sd: their standard deviation; the range of an image is [0, 1].
        seed: of the numbers.
    """

    sd: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, sd: float) -> "GaussianNoise":
        """Draws the numbers' seed."""
        return cls(sd, int(rng.integers(2**32)))

    def apply(self, sample: Sample) -> Sample:
        """The sample with noise, rounded and clipped to uint8."""
        rng = np.random.default_rng(self.seed)
        noise = rng.standard_normal(sample.image.shape, np.float32) * (255 * self.sd)
        noise += sample.image
        return replace(sample, image=np.rint(noise).clip(0, 255).astype(np.uint8))
