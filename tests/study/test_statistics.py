"""The statistics of a study, fed with made-up runs whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from detector.study.statistics import (
    adjust_holm,
    bootstrap_pairs,
    compare_pairs,
    find_detectable_difference,
)

SIMULATIONS = 2000


def simulate_differences(rng, truth: float, pairs: int, count: int = SIMULATIONS) -> np.ndarray:
    """Differences of two arms, [count, pairs]: what a seed does to both cancels, the rest does not."""
    seed = rng.normal(0.5, 0.05, (count, pairs))
    first = seed + rng.normal(0, 0.01, (count, pairs))
    second = seed + truth + rng.normal(0, 0.01, (count, pairs))
    return second - first


@pytest.mark.parametrize("pairs", [3, 5, 10])
@pytest.mark.parametrize("truth", [0.0, 0.02])
def test_intervals_cover_the_truth_in_95_percent(rng, truth, pairs):
    found = compare_pairs(simulate_differences(rng, truth, pairs))
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.93 <= covered <= 0.97


def test_without_a_difference_better_is_claimed_in_at_most_5_percent(rng):
    """Of whole studies: three arms against a baseline that they share, after Holm's correction."""
    seed = rng.normal(0.5, 0.05, (SIMULATIONS, 1, 5))
    scores = seed + rng.normal(0, 0.01, (SIMULATIONS, 4, 5))
    found = compare_pairs(scores[:, 1:] - scores[:, :1])
    shown = (adjust_holm(found.p) <= 0.05) & ~((found.low <= 0) & (found.high >= 0))
    assert (shown & (found.mean > 0)).any(-1).mean() <= 0.05
    assert shown.any(-1).mean() <= 0.06  # either way: 5 % and the noise of 2000 simulations
    uncorrected = (found.p <= 0.05).any(-1).mean()
    assert uncorrected > 0.08


def test_the_t_interval_is_scipys(rng):
    first, second = rng.normal(size=(2, 6))
    expected = stats.ttest_rel(second, first)
    ends = expected.confidence_interval(0.95)
    found = compare_pairs(second - first)
    assert float(found.p) == pytest.approx(expected.pvalue)
    assert (float(found.low), float(found.high)) == pytest.approx((ends.low, ends.high))


def test_pairing_removes_what_a_seed_does_to_both(rng):
    """The same runs, shuffled: the interval is several times as wide."""
    differences = simulate_differences(rng, 0.02, 8, 1)[0]
    seeds = rng.normal(0.5, 0.05, 8)
    unpaired = differences + seeds - rng.permutation(seeds)
    widths = [float(f.high - f.low) for f in map(compare_pairs, (differences, unpaired))]
    assert widths[1] > 2 * widths[0]


def test_one_pair_has_no_interval():
    found = compare_pairs(np.array([0.1]))
    assert float(found.mean) == 0.1
    assert np.isnan([found.sd, found.low, found.high, found.p]).all()


def test_equal_runs_and_equal_differences():
    found = compare_pairs(np.array([[0.0, 0, 0], [0.25, 0.25, 0.25]]))
    assert found.p.tolist() == [1, 0]
    assert found.low.tolist() == found.high.tolist() == [0, 0.25]


def test_folds_widen_the_interval(rng):
    """Nadeau and Bengio's variance; the differences of 5 folds, a seed each."""
    differences = rng.normal(0, 1, 5)
    plain, folds = compare_pairs(differences), compare_pairs(differences, overlap=1 / 4)
    ratio = (folds.high - folds.low) / (plain.high - plain.low)
    assert float(ratio) == pytest.approx(np.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_holm_by_hand():
    assert adjust_holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])


def test_holm_equals_its_definition(rng):
    """Reject the smallest p while p <= level / (comparisons left)."""
    for p in rng.uniform(0, 0.1, (200, 4)):
        rejected = set()
        for left, number in zip(range(4, 0, -1), np.argsort(p), strict=True):
            if p[number] > 0.05 / left:
                break
            rejected.add(int(number))
        assert set(np.flatnonzero(adjust_holm(p) <= 0.05)) == rejected


def test_holm_leaves_out_comparisons_without_p():
    adjusted = adjust_holm(np.array([np.nan, 0.02, 0.03]))
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])


@pytest.mark.parametrize("pairs", [3, 5, 12])
def test_a_detectable_difference_is_shown_in_80_percent(rng, pairs):
    sd = np.sqrt(2) * 0.01
    truth = find_detectable_difference(sd, pairs)
    found = compare_pairs(simulate_differences(rng, truth, pairs))
    assert 0.77 <= (found.low > 0).mean() <= 0.83


def test_the_detectable_difference_shrinks_with_pairs_and_grows_with_comparisons():
    sizes = [find_detectable_difference(0.01, n) for n in (2, 3, 5, 10, 30)]
    assert sizes == sorted(sizes, reverse=True)
    assert find_detectable_difference(0.01, 5, level=0.05 / 3) > sizes[2]
    assert np.isnan(find_detectable_difference(0.01, 1))
    assert find_detectable_difference(0.0, 5) == 0


def test_the_bootstrap_over_pairs(rng):
    differences = rng.normal(0.02, 0.01, 12)
    low, high = bootstrap_pairs(differences) or (0, 0)
    assert low < differences.mean() < high
    assert bootstrap_pairs(differences) == (low, high)  # the same resamples each time
    assert bootstrap_pairs(differences[:2]) is None
    assert bootstrap_pairs(np.full(5, 0.1)) is None
