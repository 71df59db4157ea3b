"""From a trained model to COCO's numbers.

Read `evaluator` (from model to numbers), `predict` (detections of every image), `coco_ap` (the twelve
numbers), `ground_truth` (their input as checked arrays) and `backends` (what computes them). `matching`
pairs detections with ground truth for `intervals` (confidence intervals), `thresholds` (operating points)
and `error_analysis` (dAP, confusion matrix, calibration, label errors). `top_k` evaluates a classifier;
`saved_evaluation` keeps what either found in each image; `loss_grid` computes the loss around trained
weights.
"""

from detector.evaluation.backends import CocoResult, choose_backend
from detector.evaluation.calibration import CalibrationBin
from detector.evaluation.class_analysis import Accuracy, ClassAnalysis, analyse_classes
from detector.evaluation.coco_ap import METRICS, CocoAP
from detector.evaluation.comparison import ModelResult, compare_models
from detector.evaluation.error_analysis import Analysis, ClassResult, analyse
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.ground_truth import GroundTruth, Results, read_results, save_results
from detector.evaluation.intervals import RESAMPLES
from detector.evaluation.label_errors import LabelError
from detector.evaluation.predict import StageTimer, predict
from detector.evaluation.saved_evaluation import (
    SavedEvaluation,
    load_evaluation,
    save_accuracies,
    save_detections,
)
from detector.evaluation.text_tables import (
    format_comparison,
    format_intervals,
    format_metrics,
    format_operating_points,
)
from detector.evaluation.thresholds import OperatingPoint, ScoreCurve, ThresholdGoal
from detector.evaluation.top_k import TopKEvaluator
from detector.evaluation.tta import TTAView, make_tta_views

__all__ = [
    "Accuracy",
    "ClassAnalysis",
    "analyse_classes",
    "METRICS",
    "RESAMPLES",
    "Analysis",
    "ClassResult",
    "CocoAP",
    "StageTimer",
    "ScoreCurve",
    "Evaluator",
    "ThresholdGoal",
    "TopKEvaluator",
    "CocoResult",
    "OperatingPoint",
    "Results",
    "ModelResult",
    "LabelError",
    "CalibrationBin",
    "GroundTruth",
    "SavedEvaluation",
    "TTAView",
    "analyse",
    "choose_backend",
    "compare_models",
    "format_comparison",
    "format_intervals",
    "format_metrics",
    "format_operating_points",
    "load_evaluation",
    "make_tta_views",
    "predict",
    "read_results",
    "save_accuracies",
    "save_detections",
    "save_results",
]
