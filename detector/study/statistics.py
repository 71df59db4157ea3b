"""Paired comparisons of arms: intervals, Holm's correction, the difference that n pairs can detect.

Arrays of differences have the pairs in their last axis; leading axes are independent comparisons.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

COVERAGE = 0.95
POWER = 0.8  # probability with which a detectable difference is shown; Cohen, 1988, section 1.5
RESAMPLES = 9999  # scipy's default; the ends of an interval then vary by about a hundredth of it


@dataclass(frozen=True, slots=True, eq=False)
class PairedIntervals:
    """Mean differences of paired runs, their t intervals and their p values.

    Attributes:
        mean, sd: float64 [...], of the differences; the sample standard deviation.
        low, high: float64 [...], ends of the interval; NaN with fewer than two pairs.
        p: float64 [...], two-sided, of no difference; NaN with fewer than two pairs.
    """

    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def compare_pairs(
    differences: np.ndarray, *, overlap: float = 0.0, coverage: float = COVERAGE
) -> PairedIntervals:
    """Computes the paired t intervals of mean differences.

    Args:
        differences: float64 [..., n], one per pair.
        overlap: test images by training images of a fold, 1 / (k - 1) in a k-fold cross-validation; 0
            for runs on the same split. Folds share training images, so that their differences vary less
            than independent ones; the variance of the mean is sd^2 (1 / n + overlap) in place of sd^2 / n
            (Nadeau and Bengio, "Inference for the Generalization Error", 2003, section 3).
        coverage: of the intervals.
    """
    differences = np.asarray(differences, np.float64)
    n = differences.shape[-1]
    mean = differences.mean(-1)
    if n < 2:
        none = np.full_like(mean, np.nan)
        return PairedIntervals(mean, none, none, none, none)
    sd = differences.std(-1, ddof=1)
    error = compute_standard_error(sd, n, overlap)
    half = stats.t.ppf((1 + coverage) / 2, n - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(mean) / error, n - 1)
    p = np.where(error > 0, p, np.where(mean == 0, 1.0, 0.0))
    return PairedIntervals(mean, sd, mean - half, mean + half, p)


def compute_standard_error(sd: np.ndarray, n: int, overlap: float) -> np.ndarray:
    """The standard error of a mean of `n` differences; arguments as in `compare_pairs`."""
    return sd * np.sqrt(1 / n + overlap)


def adjust_holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values, which keep the chance of any false claim among them at the level.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Args:
        p: float64 [..., m], of m comparisons; NaN (no p value) counts as none and stays NaN.

    Returns:
        float64 [..., m], in [0, 1].
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, -1, kind="stable")  # NaN last
    ranked = np.take_along_axis(p, order, -1)
    left = (~np.isnan(p)).sum(-1, keepdims=True) - np.arange(p.shape[-1])
    grown = np.minimum(np.maximum.accumulate(ranked * np.maximum(left, 1), -1), 1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, grown, -1)
    return adjusted


def find_detectable_difference(
    sd: float, n: int, *, overlap: float = 0.0, level: float = 1 - COVERAGE, power: float = POWER
) -> float:
    """Finds the smallest true difference that `n` pairs would show with probability `power`.

    Args:
        sd: standard deviation of the differences, as estimated from the same pairs.
        n, overlap: as in `compare_pairs`.
        level: of the two-sided test; divided by the number of comparisons where there are several.
        power: in (`level`, 1).

    Returns:
        In the unit of `sd`; NaN with fewer than two pairs.
    """
    if n < 2 or np.isnan(sd):
        return float("nan")
    if sd == 0:
        return 0.0
    critical = stats.t.ppf(1 - level / 2, n - 1)

    def miss(shift: float) -> float:
        # t^2 is F with one degree of freedom; scipy 1.17's noncentral t is NaN for some shifts
        return float(stats.ncf.sf(critical**2, 1, n - 1, shift**2)) - power

    shift = optimize.root_scalar(miss, bracket=(0.0, 10 * critical + 10)).root
    return float(shift * compute_standard_error(np.asarray(sd), n, overlap))


def bootstrap_pairs(
    differences: np.ndarray, *, seed: int = 0, coverage: float = COVERAGE
) -> tuple[float, float] | None:
    """Computes a bootstrap interval (BCa) of the mean difference over the pairs.

    With few pairs it is too narrow: 5 pairs of normal noise cover the truth in about 85 % of cases, not
    95. So it accompanies the t interval, from which the verdict comes.

    Returns:
        Lower and upper end; None with fewer than three pairs, or if all differences are equal.
    """
    if len(differences) < 3 or np.ptp(differences) == 0:
        return None
    with warnings.catch_warnings():  # degenerate resamples of few pairs
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=coverage,
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    return None if np.isnan(low) or np.isnan(high) else (low, high)
