"""The augmentations of a detector's or a classifier's samples."""

from dataclasses import fields

from detector.build.model import is_classifier
from detector.config import BagConfig, Config
from detector.data import MIRRORING, Albumentations, Bag, ClassBag
from detector.errors import UserError

DETECTOR_BAGS = ("mosaic", "yolov4")
CLASS_BAGS = ("none", "cifar", "cifar_cutmix", "imagenet", "imagenet_mix", "darknet", "darknet_mix")
NOT_FOR_CLASSIFIERS = ("mosaic9", "paste")


def build_bag(config: Config, *, mirrors: bool, smallest: int | None = None) -> Bag | ClassBag:
    """The augmentations of a sample; flips are off unless the data set `mirrors`.

    Args:
        config: of the run.
        mirrors: whether a mirrored object keeps its class.
        smallest: pixels; the transforms of albumentations are tried on a blank image of this size.

    Raises:
        UserError: a bag of the other kind of network; or albumentations has no such transform or rejects
            its arguments, or a transform mirrors images although the data set forbids it.
    """
    kind = ClassBag if is_classifier(config.model) else Bag
    require_bag_of_kind(config.bag, classifier=kind is ClassBag)
    names = [field.name for field in fields(kind) if field.name != "extra"]
    strengths = {name: getattr(config.bag, name) for name in names}
    if not mirrors:
        strengths |= {"flip_lr": 0.0, "flip_ud": 0.0}
    extra = build_albumentations(config.bag, mirrors=mirrors)
    if extra is not None and smallest is not None:
        extra.dry_run(smallest, smallest)
    return kind(**strengths, extra=extra)


def build_albumentations(config: BagConfig, *, mirrors: bool) -> Albumentations | None:
    """The chain of `bag.albumentations`; None if it is empty.

    Raises:
        UserError: as `build_bag`.
    """
    refused = [each.name for each in config.albumentations if each.name in MIRRORING]
    if refused and not mirrors:
        raise UserError(
            f"bag.albumentations: {refused[0]} mirrors images, but the data YAML has "
            f"`mirrors: false`; remove the transform"
        )
    chain = [(each.name, each.model_extra or {}) for each in config.albumentations]
    return Albumentations(chain) if chain else None


def require_bag_of_kind(bag: BagConfig, *, classifier: bool) -> None:
    """Checks that a bag is made for this kind of network.

    Raises:
        UserError: it is made for the other; or a classifier's mixes take more than all images.
    """
    if not classifier:
        if bag.crop != "centre":
            raise UserError(
                f"bag.crop: {bag.crop} is for classifiers, whose images have no boxes; expected "
                f"centre, or one of the bags none, {', '.join(DETECTOR_BAGS)}"
            )
        return
    if bag.preset in DETECTOR_BAGS:
        raise UserError(
            f"bag: {bag.preset} is made for detectors; a classifier has {', '.join(CLASS_BAGS)}"
        )
    for name in NOT_FOR_CLASSIFIERS:
        if getattr(bag, name):
            raise UserError(f"bag.{name}: for detectors; a classifier's images have no boxes")
    total = bag.mosaic + bag.cutmix + bag.mixup
    if total > 1 + 1e-9:
        raise UserError(
            f"bag: mosaic, cutmix and mixup add up to {total:g}; expected 1 or less, since an image "
            f"of a classifier takes at most one of them"
        )
