"""Confidence thresholds: precision, recall and F1 over the score; choosing an operating point."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class ThresholdGoal:
    """The goal that a confidence threshold is chosen for.

    Attributes:
        metric: "f1" is maximised; precision or recall has to reach `minimum`.
        minimum: in (0, 1].

    Raises:
        UserError: `minimum` is outside (0, 1].
    """

    metric: Literal["f1", "precision", "recall"] = "f1"
    minimum: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= 1:
            raise UserError(
                f"--want-{self.metric} {self.minimum:g}: expected a number above 0 and at most 1, "
                f"such as 0.9"
            )

    def __str__(self) -> str:
        return "greatest F1" if self.metric == "f1" else f"{self.metric} {self.minimum:g}"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision, recall and F1 at the confidence threshold `score`, at IoU 0.5."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCurve:
    """Precision and recall at each confidence threshold, at IoU 0.5, from the highest score down.

    Attributes:
        score, precision, recall: float64 [n]; all scores differ.
    """

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @classmethod
    def from_detections(
        cls, score: np.ndarray, true_positive: np.ndarray, num_ground_truth: int
    ) -> "ScoreCurve":
        """Counts true positives from the highest score down.

        Args:
            score: float64 [d], of the detections that are not ignored.
            true_positive: bool [d].
            num_ground_truth: objects that count.
        """
        order = np.argsort(-score, kind="stable")
        score, hits = score[order], np.cumsum(true_positive[order])
        last = np.r_[score[1:] != score[:-1], True][: len(score)]  # of equal scores, all or none
        count = np.arange(1, len(score) + 1)
        return cls(score[last], (hits / count)[last], (hits / max(num_ground_truth, 1))[last])

    @property
    def f1(self) -> np.ndarray:
        """[n], the harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.maximum(total, 1e-12)

    def choose_point(self, goal: ThresholdGoal) -> OperatingPoint | None:
        """The best threshold that reaches the goal; None where none does.

        For a minimum precision it is the one of maximum recall, and vice versa; of equals, the highest.
        """
        if goal.metric == "f1":
            good, value = np.arange(len(self.score)), self.f1
        elif goal.metric == "precision":
            good, value = np.flatnonzero(self.precision >= goal.minimum), self.recall
        else:
            good, value = np.flatnonzero(self.recall >= goal.minimum), self.precision
        if not len(good):
            return None
        at = good[value[good].argmax()]
        columns = (self.score, self.precision, self.recall, self.f1)
        return OperatingPoint(*(float(column[at]) for column in columns))

    def maximum(self, metric: Literal["f1", "precision", "recall"]) -> float:
        """The maximum over all thresholds; 0 without detections."""
        return float(getattr(self, metric).max(initial=0))
