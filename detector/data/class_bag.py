"""The augmentations of a classifier's training samples, in the order they run."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.data.augment.class_mix import (
    Quadrants,
    blend_classes,
    cut_classes,
    make_class_sample,
)
from detector.data.augment.color import HSV
from detector.data.augment.crop import Crop, crop_centre
from detector.data.augment.geometry import Affine, Flip
from detector.data.augment.mix import CutMix, Erase, MixUp
from detector.data.augment.noise import GaussianNoise
from detector.data.bag import Extra
from detector.data.image_sources import SampleRequest, Source
from detector.data.store.image_files import sample_without_labels
from detector.structures import Sample

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassBag:
    """The augmentations of images of one class and their strengths; 0 switches one off.

    `BagConfig` says the unit of each. An image takes at most one of mosaic, CutMix and MixUp; their
    probabilities sum to 1 or less.
    """

    crop: Literal["centre", "resized", "padded", "short_side"] = "centre"
    crop_area: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    crop_zoom: Range = (0.5, 1.75)
    crop_padding: int = 4
    scale: float = 0.0
    translate: float = 0.0
    degrees: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    flip_lr: float = 0.0
    flip_ud: float = 0.0
    extra: Extra | None = None
    mosaic: float = 0.0
    cutmix: float = 0.0
    cutmix_alpha: float = 0.0
    mixup: float = 0.0
    mixup_alpha: float = 8.0
    erase: float = 0.0
    noise: float = 0.0

    def make_sample(self, request: SampleRequest) -> Sample | None:
        """Makes a sample; None where no file could be read."""
        return _ClassAugmentation(self, request).make()

    def choose_mix(self, value: float) -> str | None:
        """Which mix an image takes for a value in [0, 1); None: none.

        One value decides for all three: a change of one probability leaves most images as they are.
        """
        for name in ("mosaic", "cutmix", "mixup"):
            value -= getattr(self, name)
            if value < 0:
                return name
        return None


class _ClassAugmentation:
    """Reads and augments one training sample.

    Attributes:
        sources, streams, shape, mixes: as in `SampleRequest`.
    """

    def __init__(self, bag: ClassBag, request: SampleRequest) -> None:
        self.bag, self.shape, self.mixes = bag, request.shape, request.mixes
        self.sources, self.streams = request.sources, request.streams

    def make(self) -> Sample | None:
        """The sample, or None where no file could be read."""
        sample = self._prepare(self.sources.own)
        if sample is None:
            return None
        sample = self._mix(sample)
        if (rng := self.streams.chance("erase", self.bag.erase)) is not None:
            height, width = self.shape
            sample = Erase.draw(rng, height=height, width=width).apply(sample)
        if self.bag.noise:
            rng = self.streams.generator("noise")
            sample = GaussianNoise.draw(rng, sd=self.bag.noise).apply(sample)
        return sample

    def _prepare(self, source: Source, prefix: str = "") -> Sample | None:
        """An image alone, augmented; `prefix` of the names of its streams."""
        raw = self.sources.read(source)
        if raw is None:
            return None
        image = self._change(self._crop(raw.image, prefix), prefix)
        return make_class_sample(image, int(raw.labels[0]), raw.image_id)

    def _change(self, image: np.ndarray, prefix: str) -> np.ndarray:
        """A cropped image after affine transform, colour, flip and the transforms of albumentations."""
        bag, rng = self.bag, self.streams.generator(f"{prefix}image")
        affine = Affine.draw(
            rng, scale=bag.scale, translate=bag.translate, degrees=bag.degrees, shear=bag.shear
        )
        if bag.perspective:
            perspective = self.streams.generator(f"{prefix}perspective")
            affine = affine.add_perspective(perspective, bag.perspective)
        sample = affine.apply(sample_without_labels(image), self.shape)
        sample = HSV.draw(rng, h=bag.hsv_h, s=bag.hsv_s, v=bag.hsv_v).apply(sample)
        sample = Flip.draw(rng, left_right=bag.flip_lr, up_down=bag.flip_ud).apply(sample)
        if bag.extra is not None:
            sample = bag.extra(sample, self.streams.generator(f"{prefix}extra"))
        return sample.image

    def _crop(self, image: np.ndarray, prefix: str) -> np.ndarray:
        bag, shape = self.bag, self.shape
        if bag.crop == "centre":
            return crop_centre(image, shape)
        rng, old = self.streams.generator(f"{prefix}crop"), image.shape[:2]
        if bag.crop == "resized":
            crop = Crop.draw_resized(rng, old, area=bag.crop_area, ratio=bag.crop_ratio)
            return crop.apply(image, shape)
        if bag.crop == "short_side":
            crop = Crop.draw_short_side(rng, old, shape, zoom=bag.crop_zoom, ratio=bag.crop_ratio)
            return crop.apply(image, shape)
        return Crop.draw_padded(rng, shape, bag.crop_padding).apply(
            crop_centre(image, shape), shape, fill=0
        )

    def _mix(self, sample: Sample) -> Sample:
        """The sample with up to three others mixed in, one if all of the others cannot be read."""
        bag, streams, (height, width) = self.bag, self.streams, self.shape
        name = None
        if self.mixes and bag.mosaic + bag.cutmix + bag.mixup > 0:
            name = bag.choose_mix(streams.generator("mix").random())
        if name is None:
            return sample
        rng = streams.generator(name)
        sources = self.sources.draw(rng, 3 if name == "mosaic" else 1)
        prepared = [self._prepare(s, f"{name} {place} ") for place, s in enumerate(sources)]
        others = [each for each in prepared if each is not None]
        if not others:
            return sample
        if name == "mosaic":
            others += [sample] * (3 - len(others))  # in the place of unreadable ones
            return Quadrants.draw(rng, self.shape).apply([sample, *others])
        if name == "cutmix":
            region = CutMix.draw(rng, height=height, width=width, alpha=bag.cutmix_alpha)
            return cut_classes(region, sample, others[0])
        return blend_classes(MixUp.draw(rng, bag.mixup_alpha), sample, others[0])
