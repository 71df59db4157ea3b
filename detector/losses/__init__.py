"""The loss: `assign` (ground truth -> cells), then `yolo_loss` (box, objectness and class terms)."""

from detector.losses.assign import Matches, assign
from detector.losses.yolo_loss import BALANCE, YOLOLoss

__all__ = ["BALANCE", "Matches", "YOLOLoss", "assign"]
