"""What the report shows of one evaluation: AP by class and size, dAP, confusion, calibration.

Every AP is COCO's, computed by a backend.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detector.evaluation.backends import Backend, CocoResult
from detector.evaluation.calibration import CalibrationBin, bin_by_score
from detector.evaluation.confusion import ImageErrors, count_confusions, find_worst_images
from detector.evaluation.error_types import MATCH_IOU, classify_errors, compute_dap
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.label_errors import LabelError, find_label_errors
from detector.evaluation.matching import ALL_SIZES, IOU_HALF, Matches, match
from detector.evaluation.thresholds import OperatingPoint, ScoreCurve, ThresholdGoal

SIZE_LIMITS = (0, 16, 32, 64, 96, 160, 256, 512)  # px, of the square root of the area
BEST_F1 = ThresholdGoal()


@dataclass(frozen=True, slots=True, eq=False)
class ClassResult:
    """The results of one class; AP, AP50, AP75 and AR100 are None without ground truth.

    Attributes:
        name: of the class.
        num_ground_truth: its objects, without crowds.
        curve: its precision and recall over the score.
        point: its operating point; None where the goal is not reached at any threshold.
    """

    name: str
    num_ground_truth: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    curve: ScoreCurve
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class SizeResult:
    """AP of objects within a range of sizes, such as "32-64" px; None without ground truth."""

    name: str
    num_ground_truth: int
    ap: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What the report shows.

    Attributes:
        classes: results of each class.
        precision: float64 [101, classes], at recalls 0:0.01:1 and IoU 0.5; -1 without ground truth.
        goal: what confidence thresholds are chosen for.
        curve: precision and recall of all classes together.
        point: the operating point on it; None where the goal is not reached at any threshold.
        threshold: the score of that point, else that of the greatest F1; the confusion matrix, the worst
            images and the label errors use the detections of this score or more.
        confusion: int64 [classes + 1, classes + 1], ground truth by predicted class; the last is
            background.
        sizes: AP by object size.
        errors: kind -> (number of errors, dAP of AP50).
        ap50: COCO's.
        calibration: mean score and precision by bins of score.
        worst_images: those with the most errors, the worst first.
        label_errors: probable ones, the most probable first.
    """

    classes: list[ClassResult]
    precision: np.ndarray
    goal: ThresholdGoal
    curve: ScoreCurve
    point: OperatingPoint | None
    threshold: float
    confusion: np.ndarray
    sizes: list[SizeResult]
    errors: dict[str, tuple[int, float]]
    ap50: float
    calibration: list[CalibrationBin]
    worst_images: list[ImageErrors]
    label_errors: list[LabelError]

    def thresholds_as_json(self) -> dict[str, Any]:
        """The goal and the operating points, of all classes and of each; null where it is not reached."""
        return {
            "goal": str(self.goal),
            "iou": MATCH_IOU,
            "all": asdict(self.point) if self.point else None,
            "classes": [
                {
                    "name": one.name,
                    "truths": one.num_ground_truth,
                    "point": asdict(one.point) if one.point else None,
                }
                for one in self.classes
            ],
        }


def analyse(
    ground_truth: GroundTruth, results: Results, backend: Backend, goal: ThresholdGoal = BEST_F1
) -> Analysis:
    """Computes everything that the report shows.

    Args:
        ground_truth, results: checked.
        backend: computes each AP.
        goal: what confidence thresholds are chosen for.
    """
    coco = backend.evaluate(ground_truth, results, None)
    matches = match(ground_truth, results, areas=ALL_SIZES, thresholds=IOU_HALF)
    curve, class_curves = compute_score_curves(ground_truth, results, matches)
    point = curve.choose_point(goal)
    chosen = point or curve.choose_point(BEST_F1)
    threshold = chosen.score if chosen else 0.5  # without detections, any
    errors = classify_errors(ground_truth, results, matches)
    return Analysis(
        classes=compute_class_results(ground_truth, coco, class_curves, goal),
        precision=coco.precision[0, :, :, 0, 2],
        goal=goal,
        curve=curve,
        point=point,
        threshold=threshold,
        confusion=count_confusions(ground_truth, results.rows(results.score >= threshold)),
        sizes=compute_size_results(ground_truth, results, backend),
        errors=compute_dap(ground_truth, results, backend, errors),
        ap50=float(coco.stats[1]),
        calibration=bin_by_score(results, matches),
        worst_images=find_worst_images(ground_truth, results, threshold),
        label_errors=find_label_errors(ground_truth, results, errors, threshold),
    )


def compute_score_curves(
    ground_truth: GroundTruth, results: Results, matches: Matches
) -> tuple[ScoreCurve, list[ScoreCurve]]:
    """Computes precision and recall over the score, of all classes together and of each class."""
    counts = ~matches.ignored[0, 0]
    rows = matches.rows[counts]
    score, label = results.score[rows], results.label[rows]
    correct = matches.true_positive()[counts]
    total = np.bincount(ground_truth.label[matches.counted[0]], minlength=len(ground_truth.names))
    ends = np.searchsorted(label, np.arange(len(total) + 1))  # `rows` are sorted by class
    by_class = [
        ScoreCurve.from_detections(score[start:end], correct[start:end], int(count))
        for start, end, count in zip(ends[:-1], ends[1:], total, strict=True)
    ]
    return ScoreCurve.from_detections(score, correct, int(total.sum())), by_class


def compute_class_results(
    ground_truth: GroundTruth, coco: CocoResult, curves: Sequence[ScoreCurve], goal: ThresholdGoal
) -> list[ClassResult]:
    """Computes COCO's AP of each class, and its operating point."""
    num_classes = len(ground_truth.names)
    counts = np.bincount(ground_truth.label[~ground_truth.crowd], minlength=num_classes).tolist()
    precision, recall = coco.precision[..., 0, 2], coco.recall[..., 0, 2]
    return [
        ClassResult(
            name=name,
            num_ground_truth=count,
            ap=_mean(precision[:, :, k]),
            ap50=_mean(precision[0, :, k]),
            ap75=_mean(precision[5, :, k]),
            ar=_mean(recall[:, k]),
            curve=curves[k],
            point=curves[k].choose_point(goal) if count else None,
        )
        for k, (name, count) in enumerate(zip(ground_truth.names, counts, strict=True))
    ]


def compute_size_results(
    ground_truth: GroundTruth, results: Results, backend: Backend
) -> list[SizeResult]:
    """Computes COCO's AP for finer ranges of object size than its own three."""
    ends = [*SIZE_LIMITS[1:], 1e5]
    areas = [
        (f"{low}-{high:g}", float(low) ** 2, float(high) ** 2)
        for low, high in zip(SIZE_LIMITS, ends, strict=True)
    ]
    areas[-1] = (f"> {SIZE_LIMITS[-1]}", *areas[-1][1:])
    precision = backend.evaluate(ground_truth, results, areas).precision
    area, countable = ground_truth.area, ~ground_truth.crowd
    return [
        SizeResult(
            name=name,
            num_ground_truth=int((countable & (area >= low) & (area <= high)).sum()),
            ap=_mean(precision[:, :, :, number, 2]),
        )
        for number, (name, low, high) in enumerate(areas)
    ]


def _mean(values: np.ndarray) -> float | None:
    """The mean of the defined values; COCO's arrays have -1 elsewhere."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
