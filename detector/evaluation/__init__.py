"""From a trained model to COCO's numbers.

Read `evaluator` (the whole way), `predict` (boxes of every image), `coco_ap` (the twelve numbers),
`truth` (the arrays behind them, checked), `backends` (who computes them), `matching` (which box found
which), `intervals` (how sure they are), `operating` (the score to choose) and `analysis` (where AP is
lost).
"""

from detector.evaluation.analysis import Analysis, ClassLine, Suspect, analyse
from detector.evaluation.backends import Judged, choose_backend
from detector.evaluation.coco_ap import METRICS, CocoAP, table
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.intervals import RESAMPLES, Resampler, bootstrap, interval
from detector.evaluation.operating import Curve, Goal, Point
from detector.evaluation.predict import Clock, Found, predict
from detector.evaluation.tables import Row, compare
from detector.evaluation.truth import Results, Truth, read_results, save_results
from detector.evaluation.views import View, make_views

__all__ = [
    "METRICS",
    "RESAMPLES",
    "Analysis",
    "ClassLine",
    "CocoAP",
    "Clock",
    "Curve",
    "Evaluator",
    "Found",
    "Goal",
    "Judged",
    "Point",
    "Resampler",
    "Results",
    "Row",
    "Suspect",
    "Truth",
    "View",
    "analyse",
    "bootstrap",
    "choose_backend",
    "compare",
    "interval",
    "make_views",
    "predict",
    "read_results",
    "save_results",
    "table",
]
