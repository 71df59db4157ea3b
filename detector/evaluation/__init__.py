"""From a trained model to COCO's numbers.

Read `evaluator` (the whole way), `predict` (boxes of every image), `coco_ap` (the twelve numbers),
`truth` (the arrays behind them, checked), `backends` (who computes them), `matching` (which box found
which), `intervals` (how sure they are), `operating` (the score to choose) and `analysis` (where AP is
lost).
"""

from detector.evaluation.backends import CocoResult, choose_backend
from detector.evaluation.coco_ap import METRICS, CocoAP, table
from detector.evaluation.comparison import ModelResult, compare
from detector.evaluation.error_analysis import Analysis, ClassResult, LabelSuspect, analyse
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.ground_truth import GroundTruth, Results, read_results, save_results
from detector.evaluation.intervals import RESAMPLES, Resampler, bootstrap, interval
from detector.evaluation.predict import StageTimer, predict
from detector.evaluation.thresholds import OperatingPoint, ScoreCurve, ThresholdGoal
from detector.evaluation.tta import TTAView, make_tta_views

__all__ = [
    "METRICS",
    "RESAMPLES",
    "Analysis",
    "ClassResult",
    "CocoAP",
    "StageTimer",
    "ScoreCurve",
    "Evaluator",
    "ThresholdGoal",
    "CocoResult",
    "OperatingPoint",
    "Resampler",
    "Results",
    "ModelResult",
    "LabelSuspect",
    "GroundTruth",
    "TTAView",
    "analyse",
    "bootstrap",
    "choose_backend",
    "compare",
    "interval",
    "make_tta_views",
    "predict",
    "read_results",
    "save_results",
    "table",
]
