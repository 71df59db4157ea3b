"""From a trained model to COCO's numbers.

Read `evaluator` (the whole way), `predict` (boxes of every image), `coco_ap` (the twelve numbers).
"""

from detector.evaluation.coco_ap import METRICS, CocoAP, table
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.predict import Found, predict

__all__ = ["METRICS", "CocoAP", "Evaluator", "Found", "predict", "table"]
