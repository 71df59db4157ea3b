"""The loss: `assign` (ground truth -> cells), then `yolo` (box, objectness and class terms)."""

from detector.losses.assign import Matches, assign
from detector.losses.yolo import BALANCE, YOLOLoss

__all__ = ["BALANCE", "Matches", "YOLOLoss", "assign"]
