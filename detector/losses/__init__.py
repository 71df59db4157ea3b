"""What the network is trained on: `assign` (targets -> cells), then `yolo` (box, objectness, class)."""

from detector.losses.assign import Matches, assign
from detector.losses.yolo import BALANCE, YOLOLoss

__all__ = ["BALANCE", "Matches", "YOLOLoss", "assign"]
