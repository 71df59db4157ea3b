"""Calibration: whether a score is the probability that a detection is correct."""

from dataclasses import dataclass

import numpy as np

from detector.evaluation.ground_truth import Results
from detector.evaluation.matching import Matches

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The detections of one bin of scores: mean score, precision at IoU 0.5, and their number."""

    score: float
    precision: float
    count: int


def bin_by_score(results: Results, matches: Matches) -> list[CalibrationBin]:
    """The bins of equal width that have detections; `matches` at IoU 0.5."""
    counts = ~matches.ignored[0, 0]
    return bin_scores(results.score[matches.rows[counts]], matches.true_positive()[counts])


def bin_scores(score: np.ndarray, correct: np.ndarray) -> list[CalibrationBin]:
    """The bins of equal width of scores in [0, 1] [n], with the share that is correct, bool [n]."""
    bin_of = np.minimum((score * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        mine = bin_of == number
        if mine.any():
            mean, precision = float(score[mine].mean()), float(correct[mine].mean())
            bins.append(CalibrationBin(mean, precision, int(mine.sum())))
    return bins
