"""The named bags: the keys that `bag: NAME` stands for, in all sections.

Keys that the same YAML sets explicitly win, and so do those of a child config or the command line.
Keys of `bag` that a bag does not set have their defaults in `bag_schema.py`, those of the bag
`mosaic`. A key of another section that one bag sets is set in all of them, so any bag can override
any other.
"""

from typing import Any

_OFF = {
    "mosaic": 0.0,
    "scale": 0.0,
    "translate": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "flip_lr": 0.0,
}
_NO_SMOOTHING = {"label_smoothing": 0.0}
# label_smooth_eps=0.1 of csdarknet53-omega.cfg, a classifier's
_SMOOTHING = {"label_smoothing": 0.1}
# 32 px: shifted by up to four pixels and mirrored; He et al., "Deep Residual Learning", 2016, section 4.2
_CIFAR = {**_OFF, "crop": "padded", "flip_lr": 0.5}
# a random rectangle, mirrored; colours as of Howard, "Some Improvements", 2014, but without contrast
_IMAGENET = {**_OFF, "crop": "resized", "hsv_s": 0.4, "hsv_v": 0.4, "flip_lr": 0.5}
# csdarknet53.cfg, on which the table of the Mish paper builds: 128 to 448 px for crops of 256
_DARKNET = {
    **_OFF,
    "crop": "short_side",
    "degrees": 7.0,
    "hsv_h": 0.1,
    "hsv_s": 0.25,
    "hsv_v": 0.25,
    "flip_lr": 0.5,
}

BAGS: dict[str, dict[str, dict[str, Any]]] = {
    # "Data Augmentation: No" in the paper's tables: images are placed as in an evaluation, nothing else
    "none": {
        "bag": _OFF,
        "loss": _NO_SMOOTHING,
    },
    # the current PyTorch recipe of YOLOv4: mosaic, affine, HSV, flip
    "mosaic": {"loss": _NO_SMOOTHING},
    # the same, plus what Bochkovskiy et al., "YOLOv4", 2020, section 3.4 adds
    "yolov4": {
        "bag": {
            # darknet's classifier, trained with mosaic and CutMix, uses each for half of its mixed
            # images; its detector has no CutMix, so the share is the classifier's, not a published one
            "cutmix": 0.5,
            "multi_scale": 1.4,  # darknet's yolov4.cfg: random=1, a factor u or 1/u, u in 1 .. 1.4
            "dropblock": 0.1,  # Ghiasi et al., "DropBlock", 2018, a keep probability of 0.9
            "sat": 0.5,  # darknet: half of the mini-batches
        },
        "loss": _SMOOTHING,
    },
    # those below are for classifiers
    "cifar": {"bag": _CIFAR, "loss": _NO_SMOOTHING},
    # Yun et al., "CutMix", 2019, section 4.1: CIFAR, half of the images, Beta(1, 1)
    "cifar_cutmix": {
        "bag": {**_CIFAR, "cutmix": 0.5, "cutmix_alpha": 1.0},
        "loss": _NO_SMOOTHING,
    },
    "imagenet": {"bag": _IMAGENET, "loss": _NO_SMOOTHING},
    # each image takes CutMix or mixup, the latter as Zhang et al., "mixup", 2018, section 3.1
    "imagenet_mix": {
        "bag": {**_IMAGENET, "cutmix": 0.5, "cutmix_alpha": 1.0, "mixup": 0.5, "mixup_alpha": 0.2},
        "loss": _SMOOTHING,
    },
    "darknet": {"bag": _DARKNET, "loss": _NO_SMOOTHING},
    # "Data Augmentation: Yes" of the paper's classifiers, csdarknet53-omega.cfg: half of the images are
    # mixed, each by mosaic or by CutMix
    "darknet_mix": {"bag": {**_DARKNET, "mosaic": 0.25, "cutmix": 0.25}, "loss": _SMOOTHING},
}
