"""The loss: `assign` (ground truth -> cells), `yolo_loss` (its terms), `iou_losses` (box losses)."""

from detector.losses.assign import Matches, assign
from detector.losses.iou_losses import BOX_LOSSES
from detector.losses.yolo_loss import BALANCE, YOLOLoss

__all__ = ["BALANCE", "BOX_LOSSES", "Matches", "YOLOLoss", "assign"]
