"""The loss: `assign` (ground truth -> candidates), `dynamic_assign` (a choice among them), `yolo_loss`.

`iou_losses` has the box losses, `class_losses` those of the class logits; `classification` is that of a
classifier.
"""

from detector.losses.assign import Matches, assign
from detector.losses.class_losses import CLASS_LOSSES
from detector.losses.classification import CLASSIFIER_LOSSES, ClassificationLoss
from detector.losses.dynamic_assign import ASSIGNERS
from detector.losses.iou_losses import BOX_LOSSES
from detector.losses.yolo_loss import BALANCE, LossTerms, YOLOLoss

__all__ = [
    "ASSIGNERS",
    "BALANCE",
    "BOX_LOSSES",
    "CLASSIFIER_LOSSES",
    "CLASS_LOSSES",
    "ClassificationLoss",
    "LossTerms",
    "Matches",
    "YOLOLoss",
    "assign",
]
