"""The augmentations of a detector's training samples, in the order they run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detector.data.augment.color import HSV
from detector.data.augment.geometry import Affine, Flip, Region, letterbox, resize_to_fit
from detector.data.augment.mix import CutMix, Erase, MixUp, Paste
from detector.data.augment.mosaic import Mosaic
from detector.data.augment.noise import GaussianNoise
from detector.data.image_sources import SampleRequest, Source
from detector.structures import Sample

# A sample and its own random numbers -> the changed sample, of the same size.
Extra = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Bag:
    """The augmentations and their strengths, in the order they run; 0 switches one off.

    `BagConfig` says the unit of each.
    """

    mosaic: float = 0.0
    mosaic9: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    degrees: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    paste: float = 0.0
    cutmix: float = 0.0
    cutmix_alpha: float = 0.0
    mixup: float = 0.0
    mixup_alpha: float = 8.0
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    flip_lr: float = 0.0
    flip_ud: float = 0.0
    extra: Extra | None = None
    erase: float = 0.0
    noise: float = 0.0

    def make_sample(self, request: SampleRequest) -> Sample | None:
        """Makes a sample; None where no file could be read."""
        return _SampleAugmentation(self, request).make()


class _SampleAugmentation:
    """Reads and augments one training sample.

    Attributes:
        sources, streams, shape, mixes: as in `SampleRequest`.
    """

    def __init__(self, bag: Bag, request: SampleRequest) -> None:
        self.bag, self.shape, self.mixes = bag, request.shape, request.mixes
        self.sources, self.streams = request.sources, request.streams

    def make(self) -> Sample | None:
        """The sample, or None where no file could be read."""
        bag, rng = self.bag, self.streams.generator()
        canvas = self._compose(self.sources.own, rng)
        if canvas is None:
            return None
        alone, within = canvas
        sample = self._mix(alone) if self.mixes else alone
        color = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v)
        sample = color.apply(sample, within if sample is alone else None)
        sample = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud).apply(sample)
        if bag.extra is not None:
            sample = bag.extra(sample, self.streams.generator("extra"))
        if (rng := self.streams.chance("erase", bag.erase)) is not None:
            height, width = self.shape
            sample = Erase.draw(rng, height=height, width=width).apply(sample)
        if bag.noise:
            rng = self.streams.generator("noise")
            sample = GaussianNoise.draw(rng, sd=bag.noise).apply(sample)
        return sample

    def _compose(
        self, source: Source, rng: np.random.Generator, prefix: str = ""
    ) -> tuple[Sample, Region] | None:
        """An image alone or in a mosaic, after the affine transform; None if nothing can be read.

        Args:
            source: the image.
            rng: for the mosaic and the affine transform.
            prefix: of the names of further streams.

        Returns:
            The sample, and the region outside of which it is only grey.
        """
        use_mosaic = rng.random() < self.bag.mosaic and self.mixes
        sources, grid = [source], 2
        if use_mosaic:
            sources += self.sources.draw(rng, 3)
            nine = self.streams.chance(f"{prefix}mosaic9", self.bag.mosaic9)
            if nine is not None:
                sources, grid = sources + self.sources.draw(nine, 5), 3
        samples = [sample for sample in map(self.sources.read, sources) if sample is not None]
        if not samples:
            return None
        mosaic = Mosaic.draw(rng, size=self.shape, grid=grid) if use_mosaic else None
        affine = self._draw_affine(rng, prefix)
        if mosaic is None:
            sample, _ = letterbox(samples[0], self.shape)
        else:
            samples += [samples[0]] * (grid**2 - len(samples))  # in the place of unreadable ones
            height, width = self.shape
            visible = affine.visible_region(2 * height, 2 * width, self.shape)
            sample = mosaic.apply(samples, self.shape, visible)
        height, width = sample.image.shape[:2]
        within = affine.covered_region(height, width, self.shape)
        return affine.apply(sample, self.shape), within

    def _draw_affine(self, rng: np.random.Generator, prefix: str) -> Affine:
        bag = self.bag
        affine = Affine.draw(
            rng,
            scale=bag.scale,
            translate=bag.translate,
            degrees=bag.degrees,
            shear=bag.shear,
        )
        if not bag.perspective:
            return affine
        perspective = self.streams.generator(f"{prefix}perspective")
        return affine.add_perspective(perspective, bag.perspective)

    def _mix(self, sample: Sample) -> Sample:
        """The sample after paste, CutMix and MixUp."""
        bag, streams = self.bag, self.streams
        if (rng := streams.chance("paste", bag.paste)) is not None:
            donor = self.sources.read(self.sources.draw_one(rng))
            if donor is not None:
                donor = resize_to_fit(donor, self.shape)
                sample = Paste.draw(rng, sample, donor).apply(sample, donor)
        if (rng := streams.chance("cutmix", bag.cutmix)) is not None:
            other = self._compose(self.sources.draw_one(rng), rng, "cutmix ")
            if other is not None:
                height, width = self.shape
                region = CutMix.draw(rng, height=height, width=width, alpha=bag.cutmix_alpha)
                sample = region.apply(sample, other[0])
        if (rng := streams.chance("mixup", bag.mixup)) is not None:
            other = self._compose(self.sources.draw_one(rng), rng, "mixup ")
            if other is not None:
                sample = MixUp.draw(rng, bag.mixup_alpha).apply(sample, other[0])
        return sample
