"""The named bags: the keys that `bag: NAME` stands for, in all sections.

Keys that the same YAML sets explicitly win, and so do those of a child config or the command line.
Keys of `bag` that a bag does not set have their defaults in `schema.py`, those of the bag `mosaic`. A key
of another section that one bag sets is set in all of them, so any bag can override any other.
"""

from typing import Any

BAGS: dict[str, dict[str, dict[str, Any]]] = {
    # "Data Augmentation: No" in the paper's tables: images are letterboxed, nothing else
    "none": {
        "bag": {
            "mosaic": 0.0,
            "scale": 0.0,
            "translate": 0.0,
            "hsv_h": 0.0,
            "hsv_s": 0.0,
            "hsv_v": 0.0,
            "flip_lr": 0.0,
        },
        "loss": {"label_smoothing": 0.0},
    },
    # the current PyTorch recipe of YOLOv4: mosaic, affine, HSV, flip
    "mosaic": {
        "loss": {"label_smoothing": 0.0},
    },
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
        "loss": {
            "label_smoothing": 0.1,  # label_smooth_eps=0.1 of csdarknet53-omega.cfg, a classifier's
        },
    },
}
