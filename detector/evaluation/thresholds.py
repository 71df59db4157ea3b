"""From which score on boxes are shown: precision, recall, F1 over the scores; the point to choose."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class ThresholdGoal:
    """What a threshold is chosen for.

    Attributes:
        of: what is to be reached; "f1" is made as great as it can be.
        wanted: the precision or recall, in (0, 1].

    Raises:
        UserError: a wanted value that no detector has.
    """

    of: Literal["f1", "precision", "recall"] = "f1"
    wanted: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.wanted <= 1:
            raise UserError(
                f"wanted {self.of} {self.wanted:g}: expected a share above 0 and up to 1, such as 0.9"
            )

    def __str__(self) -> str:
        return "greatest F1" if self.of == "f1" else f"{self.of} {self.wanted:g}"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a detector does whose boxes below `score` are left out, at IoU 0.5."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCurve:
    """The point of each threshold, at IoU 0.5, from the best score down.

    Attributes:
        score, precision, recall: float64 [n], scores all different.
    """

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, right: np.ndarray, truths: int) -> "ScoreCurve":
        """From the boxes that count.

        Args:
            score: float64 [d]. right: bool [d], whether it found a truth.
            truths: how many are to be found.
        """
        order = np.argsort(-score, kind="stable")
        score, hits = score[order], np.cumsum(right[order])
        last = np.r_[score[1:] != score[:-1], True][: len(score)]  # of equal scores all or none
        among = np.arange(1, len(score) + 1)
        return cls(score[last], (hits / among)[last], (hits / max(truths, 1))[last])

    @property
    def f1(self) -> np.ndarray:
        """[n], the harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.maximum(total, 1e-12)

    def point(self, goal: ThresholdGoal) -> OperatingPoint | None:
        """Of the thresholds that reach the goal the best one; None where none does.

        For a precision that is the one of the greatest recall, and the other way round; of equals the
        highest.
        """
        if goal.of == "f1":
            good, value = np.arange(len(self.score)), self.f1
        elif goal.of == "precision":
            good, value = np.flatnonzero(self.precision >= goal.wanted), self.recall
        else:
            good, value = np.flatnonzero(self.recall >= goal.wanted), self.precision
        if not len(good):
            return None
        at = good[value[good].argmax()]
        columns = (self.score, self.precision, self.recall, self.f1)
        return OperatingPoint(*(float(column[at]) for column in columns))

    def greatest(self, of: Literal["f1", "precision", "recall"]) -> float:
        """The most that any threshold reaches; 0 where nothing is found."""
        return float(getattr(self, of).max(initial=0))
