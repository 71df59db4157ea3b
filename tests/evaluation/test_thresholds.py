"""The operating point that is chosen, against those of all thresholds."""

import numpy as np
import pytest

from detector.errors import UserError
from detector.evaluation import ScoreCurve, ThresholdGoal


def every_point(score, correct, num_ground_truth):
    """(score, precision, recall, F1) of each possible threshold, one after the other."""
    points = []
    for threshold in sorted(set(score.tolist()), reverse=True):
        kept = correct[score >= threshold]
        precision, recall = kept.sum() / len(kept), kept.sum() / num_ground_truth
        f1 = 2 * precision * recall / (precision + recall) if kept.any() else 0
        points.append((threshold, precision, recall, f1))
    return points


def problem(rng):
    count = int(rng.integers(1, 40))
    correct = rng.random(count) < 0.6
    return rng.uniform(0, 1, count).round(1), correct, int(correct.sum() + rng.integers(1, 9))


def test_no_other_threshold_is_better_for_the_goal(rng):
    reached = set()
    for _ in range(300):
        case = problem(rng)
        curve, points = ScoreCurve.from_detections(*case), every_point(*case)
        assert curve.score.tolist() == [point[0] for point in points]
        wanted = float(rng.uniform(0.05, 1))
        best = curve.choose_point(ThresholdGoal())
        assert best.f1 == pytest.approx(max(f1 for *_, f1 in points))
        for of, column, other in (("precision", 1, 2), ("recall", 2, 1)):
            good = [point for point in points if point[column] >= wanted]
            chosen = curve.choose_point(ThresholdGoal(of, wanted))
            reached.add((of, bool(good)))
            assert curve.maximum(of) == max(point[column] for point in points)
            if not good:
                assert chosen is None
                continue
            point = (chosen.score, chosen.precision, chosen.recall, chosen.f1)
            assert any(point == pytest.approx(each) for each in good)
            assert point[other] == pytest.approx(max(point[other] for point in good))
    assert len(reached) == 4


def test_without_detections_no_goal_is_reached():
    curve = ScoreCurve.from_detections(np.zeros(0), np.zeros(0, bool), 3)
    assert (
        curve.choose_point(ThresholdGoal())
        is curve.choose_point(ThresholdGoal("recall", 0.1))
        is None
    )
    assert curve.maximum("precision") == 0


@pytest.mark.parametrize("wanted", [0, -1, 1.01, 90, float("nan")])
def test_goals_out_of_range_are_refused(wanted):
    with pytest.raises(UserError, match="expected a number above 0 and at most 1"):
        ThresholdGoal("precision", wanted)
