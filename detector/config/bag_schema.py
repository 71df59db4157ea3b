"""The augmentations of the configuration: the keys of `bag`; `bags.py` has the named ones."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector.config.ranges import CountOrZero, Fraction, ImageSize, NonNegative, Positive
from detector.config.section import Section

PositiveFraction = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]


class TransformConfig(BaseModel):
    """A transform of albumentations and its arguments, e.g. `{name: GaussNoise, p: 0.2}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


class BagConfig(Section):
    """The augmentations. 0 switches one off.

    `bag: yolov4` selects a named bag, `bag: {preset: yolov4, mixup: 0.1}` changes keys of it; `bags.py`
    has their values.
    """

    preset: Literal[
        "none",
        "mosaic",
        "yolov4",
        "cifar",
        "cifar_cutmix",
        "imagenet",
        "imagenet_mix",
        "darknet",
        "darknet_mix",
    ] = "mosaic"
    mosaic: Fraction = 1.0  # probability
    mosaic9: Fraction = 0.0  # fraction of the mosaics that have nine tiles instead of four
    # the last n epochs mix no images: no mosaic, paste, cutmix and mixup
    mosaic_off_epochs: CountOrZero = 0
    # f: height and width of each batch are drawn from size / f to size * f, in steps of 32
    multi_scale: Annotated[float, Field(ge=1, le=4)] = 1.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.9  # zoom drawn from 1 - scale .. 1 + scale
    translate: Fraction = 0.1  # shift, as a fraction of the image's size
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0  # rotation, +-
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, +-
    perspective: Annotated[float, Field(ge=0, lt=0.5)] = (
        0.0  # largest magnification of one edge, +-
    )
    paste: Fraction = 0.0  # probability; objects of another image, copied with their boxes
    # of a classifier's image, which takes at most one of mosaic, cutmix and mixup, the probabilities sum
    # to 1 or less
    cutmix: Fraction = 0.0  # probability; a region of another image; reads twice as many files
    # 0: the region has 0.3 to 0.8 of width and height, as in darknet; a: its area is from Beta(a, a)
    cutmix_alpha: NonNegative = 0.0
    mixup: Fraction = 0.0  # probability; blended with another image; reads twice as many files
    mixup_alpha: Positive = 8.0  # a: the weight of an image is drawn from Beta(a, a)
    # hue, saturation and value are multiplied by 1 + uniform(-1, 1) * gain
    hsv_h: Fraction = 0.015
    hsv_s: Fraction = 0.7
    hsv_v: Fraction = 0.4
    flip_lr: Fraction = 0.5  # probability; the data YAML can forbid flips (`mirrors: false`)
    flip_ud: Fraction = 0.0
    # DropBlock, on the neck's maps only: on those of the backbone it costs accuracy (Long et al.,
    # "PP-YOLO", 2020, section 3.2). 0.1 and 7 are the values of Ghiasi et al., "DropBlock", 2018
    dropblock: Annotated[float, Field(ge=0, lt=1)] = 0.0  # probability of a cell to be dropped
    dropblock_size: ImageSize = 7  # width of the dropped squares, cells
    dropblock_ramp: Fraction = (
        0.85  # fraction of training over which it rises from 0, as in darknet
    )
    sat: Fraction = (
        0.0  # self-adversarial training, fraction of the batches after warm-up; darknet: half
    )
    sat_lr: Fraction = (
        0.02  # how much an image of [0, 1] changes, root mean square; ramps up to this
    )
    albumentations: tuple[TransformConfig, ...] = ()  # its transforms, in this order
    erase: Fraction = 0.0  # probability; a rectangle of noise
    # standard deviation of normal noise on all pixels, whose range is [0, 1]; eval.noise is another key
    noise: Fraction = 0.0
    # Of classifiers only: the part of an image that is used. centre: the central square, as in an
    # evaluation; resized: a random rectangle; padded: the central square, shifted; short_side: as
    # darknet's classifier. See detector/data/augment/crop.py
    crop: Literal["centre", "resized", "padded", "short_side"] = "centre"
    # resized: share of the image
    crop_area: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    crop_ratio: tuple[Ratio, Ratio] = (0.75, 4 / 3)  # resized, short_side: width / height
    # short_side: shorter side, as a factor of the size
    crop_zoom: tuple[Ratio, Ratio] = (0.5, 1.75)
    crop_padding: Annotated[int, Field(ge=0, le=1024)] = 4  # padded: largest shift, pixels

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("crop_area", "crop_ratio", "crop_zoom"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"{name}: [{low:g}, {high:g}] is no range; the first is the lower end"
                )
        return self
