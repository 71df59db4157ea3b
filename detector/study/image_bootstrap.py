"""Intervals of differences over the images of the evaluation: a bootstrap, paired by image.

The runs are as they are, and the images are a sample of those that could have been taken. So this
interval says what other images would show of these networks; the t interval of `statistics` says what
other seeds would show on these images. Neither covers both.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.evaluation import SavedEvaluation, load_evaluation
from detector.evaluation.intervals import compute_confidence_intervals
from detector.study.collect import RunResult
from detector.study.plan import find_run_folder

RESAMPLES = (
    500  # each takes 5 to 20 ms a run; the ends vary by a tenth of the interval's half width
)
Pair = tuple[int, int | None]  # seed and fold
Intervals = dict[str, tuple[float, float]]  # by metric
Evaluations = Mapping[tuple[str, Pair], SavedEvaluation]  # by arm and pair


@dataclass(slots=True)
class ImageSamples:
    """The metrics of runs on resampled images.

    Attributes:
        metrics: their names.
        values: by arm and pair, float64 [metrics], on all images.
        samples: by arm and pair, float64 [resamples, metrics]; NaN where a resample has no ground truth.
        num_images: that were resampled.
        notes: lines for the user: why there is nothing.
    """

    metrics: tuple[str, ...] = ()
    values: dict[tuple[str, Pair], np.ndarray] = field(default_factory=dict)
    samples: dict[tuple[str, Pair], np.ndarray] = field(default_factory=dict)
    num_images: int = 0
    notes: list[str] = field(default_factory=list)

    def find_intervals(self, arm: str, baseline: str) -> Intervals:
        """The 95 % intervals of the mean difference of two arms over the pairs that both have."""
        pairs = [pair for name, pair in self.samples if name == arm]
        pairs = [pair for pair in pairs if (baseline, pair) in self.samples]
        if not pairs:
            return {}
        change = [self.samples[arm, pair] - self.samples[baseline, pair] for pair in pairs]
        value = [self.values[arm, pair] - self.values[baseline, pair] for pair in pairs]
        samples, values = np.mean(change, 0), np.mean(value, 0)
        found = compute_confidence_intervals(samples, values.tolist(), -math.inf, math.inf)
        return {
            name: ends
            for name, ends, mean in zip(self.metrics, found, values.tolist(), strict=True)
            if ends is not None and not math.isnan(mean)
        }


def load_evaluations(folder: Path, results: Iterable[RunResult]) -> Evaluations:
    """The evaluations of the finished runs of a study that have kept theirs, by arm and pair.

    Raises:
        UserError: a file is damaged.
    """
    return {
        (each.run.arm.name, (each.run.seed, each.run.fold)): load_evaluation(path)
        for each in results
        if each.finished and (path := find_run_folder(folder, each.run).evaluation).exists()
    }


def resample_images(
    evaluations: Evaluations, *, resamples: int = RESAMPLES, seed: int = 0
) -> ImageSamples:
    """Computes the metrics of runs on resampled images; the same images for all runs.

    The images of each fold of a cross-validation are resampled among themselves.

    Args:
        evaluations: of the runs, by arm and pair.
        resamples: 0 computes nothing.
        seed: of the resamples.
    """
    found = ImageSamples()
    if not resamples:
        return found
    groups = group_by_images(evaluations)
    if groups is None:
        found.notes.append(
            "No intervals over images: the runs were evaluated on different images or labels"
        )
        return found
    rng = np.random.default_rng(seed)
    for keys in tqdm(groups, desc="resample images", leave=False, disable=None):
        first = evaluations[keys[0]]
        found.metrics, count = first.metrics, first.num_images
        found.num_images += count
        rows: dict[tuple[str, Pair], list[np.ndarray]] = {key: [] for key in keys}
        for number in range(resamples + 1):
            drawn = (
                rng.integers(0, count, count) if number else np.arange(count)
            )  # first as they are
            weights = np.bincount(drawn, minlength=count)
            for key in keys:
                rows[key].append(evaluations[key].resampler(weights))
        for key in keys:
            values = np.array(rows[key])
            values[values < 0] = np.nan  # COCO's -1: no ground truth
            found.values[key], found.samples[key] = values[0], values[1:]
    return found


def group_by_images(
    evaluations: Evaluations,
) -> list[Sequence[tuple[str, Pair]]] | None:
    """The runs by the images that they were evaluated on: all, or those of a fold.

    None if runs that should have the same images do not.
    """
    groups: dict[Pair | None, list[tuple[str, Pair]]] = {}
    for arm, (seed, fold) in evaluations:
        groups.setdefault(None if fold is None else (seed, fold), []).append((arm, (seed, fold)))
    for keys in groups.values():
        if not all(evaluations[keys[0]].has_same_images(evaluations[key]) for key in keys):
            return None
    return list(groups.values())
