"""What a classifier gets right and wrong: accuracies with intervals, classes, calibration, errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from detector.evaluation.calibration import CalibrationBin, bin_scores

COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of the images, with its 95 % interval after Wilson (1927).

    Unlike a bootstrap, the interval has a width even where all images are right.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, images: int) -> "Accuracy":
        """`right` of `images`, at least one."""
        interval = stats.binomtest(right, images).proportion_ci(COVERAGE, method="wilson")
        return cls(right / images, float(interval.low), float(interval.high))


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: its images, the share of them found, and the share of its predictions that is right.

    Attributes:
        recall: None without images.
        precision: None without predictions.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class ClassError:
    """An image of the wrong class: labels of ground truth and prediction, and the prediction's score."""

    image_id: int
    label: int
    predicted: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassAnalysis:
    """The analysis of one evaluation.

    Attributes:
        names: of the classes, by label.
        images: how many were evaluated.
        top1, top5: accuracies.
        loss: mean cross-entropy.
        confusion: int64 [classes, classes], ground truth by prediction.
        bins: first predictions by their score.
        calibration_error: mean distance of score and precision over the images (ECE, ten bins).
        rows: of the classes.
        errors: all, the highest score first.
    """

    names: tuple[str, ...]
    images: int
    top1: Accuracy
    top5: Accuracy
    loss: float
    confusion: np.ndarray
    bins: list[CalibrationBin]
    calibration_error: float
    rows: list[ClassRow]
    errors: list[ClassError]

    def as_json(self) -> dict[str, Any]:
        """Its numbers, without the errors."""
        return {
            "images": self.images,
            **{
                name: {"value": each.value, "low": each.low, "high": each.high}
                for name, each in (("top1", self.top1), ("top5", self.top5))
            },
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "classes": [
                {name: getattr(row, name) for name in ("name", "images", "recall", "precision")}
                for row in self.rows
            ],
        }


def analyse_classes(images: np.ndarray, names: Sequence[str]) -> ClassAnalysis:
    """Analyses an evaluation.

    Args:
        images: float64 [n, 7], `TopKEvaluator.images`; at least one.
        names: of the classes, by label.
    """
    ids, labels, right, in_five, losses, predicted, scores = images.T
    true, found = labels.astype(int), predicted.astype(int)
    classes, count = len(names), len(images)
    confusion = np.bincount(true * classes + found, minlength=classes**2).reshape(classes, -1)
    bins = bin_scores(scores, right > 0)
    gaps = [abs(each.score - each.precision) * each.count for each in bins]
    wrong = (right == 0).nonzero()[0]
    wrong = wrong[np.argsort(-scores[wrong], kind="stable")]
    return ClassAnalysis(
        names=tuple(names),
        images=count,
        top1=Accuracy.of(int(right.sum()), count),
        top5=Accuracy.of(int(in_five.sum()), count),
        loss=float(losses.mean()),
        confusion=confusion,
        bins=bins,
        calibration_error=sum(gaps) / count,
        rows=_count_classes(confusion, names),
        errors=[
            ClassError(int(ids[at]), int(true[at]), int(found[at]), float(scores[at]))
            for at in wrong.tolist()
        ],
    )


def _count_classes(confusion: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    right, images, predictions = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return [
        ClassRow(
            name,
            int(images[at]),
            float(right[at] / images[at]) if images[at] else None,
            float(right[at] / predictions[at]) if predictions[at] else None,
        )
        for at, name in enumerate(names)
    ]
