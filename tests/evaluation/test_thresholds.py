"""The thresholds that are recommended, against all that could be."""

import numpy as np
import pytest

from detector.errors import UserError
from detector.evaluation import ScoreCurve, ThresholdGoal


def every_threshold(score, right, truths):
    """(score, precision, recall, F1) of each possible threshold, one after the other."""
    points = []
    for threshold in sorted(set(score.tolist()), reverse=True):
        kept = right[score >= threshold]
        precision, recall = kept.sum() / len(kept), kept.sum() / truths
        f1 = 2 * precision * recall / (precision + recall) if kept.any() else 0
        points.append((threshold, precision, recall, f1))
    return points


def problem(rng):
    count = int(rng.integers(1, 40))
    right = rng.random(count) < 0.6
    return rng.uniform(0, 1, count).round(1), right, int(right.sum() + rng.integers(1, 9))


def test_no_threshold_serves_a_goal_better(rng):
    reached = set()
    for _ in range(300):
        score, right, truths = problem(rng)
        curve, points = ScoreCurve.of(score, right, truths), every_threshold(score, right, truths)
        assert curve.score.tolist() == [point[0] for point in points]
        wanted = float(rng.uniform(0.05, 1))
        best = curve.point(ThresholdGoal())
        assert best.f1 == pytest.approx(max(f1 for *_, f1 in points))
        for of, column, other in (("precision", 1, 2), ("recall", 2, 1)):
            good = [point for point in points if point[column] >= wanted]
            chosen = curve.point(ThresholdGoal(of, wanted))
            reached.add((of, bool(good)))
            assert curve.greatest(of) == max(point[column] for point in points)
            if not good:
                assert chosen is None
                continue
            found = (chosen.score, chosen.precision, chosen.recall, chosen.f1)
            assert any(found == pytest.approx(point) for point in good)
            assert found[other] == pytest.approx(max(point[other] for point in good))
    assert len(reached) == 4


def test_nothing_found_reaches_nothing():
    curve = ScoreCurve.of(np.zeros(0), np.zeros(0, bool), 3)
    assert curve.point(ThresholdGoal()) is curve.point(ThresholdGoal("recall", 0.1)) is None
    assert curve.greatest("precision") == 0


@pytest.mark.parametrize("wanted", [0, -1, 1.01, 90, float("nan")])
def test_what_no_detector_has_is_refused(wanted):
    with pytest.raises(UserError, match="expected a share above 0 and up to 1"):
        ThresholdGoal("precision", wanted)
