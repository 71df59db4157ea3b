"""How sure COCO's numbers are: bootstrap intervals over images, and of the difference of two models.

The images of a validation set are one draw of many that could have been taken. Drawing as many again from
them, with replacement, shows how far the numbers move (Efron, "Bootstrap Methods", 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.matching import COCO_AREAS, IOU_THRESHOLDS, RECALLS, match

RESAMPLES = 1000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One area range and IoU threshold: the boxes that count, class by class, best first.

    Attributes:
        image: int32 [d], of each. first: int64 [classes], where each class begins.
        hits: int64 [h], which of them are right. label, rank: int64 [h], of these.
        hit_first: int64 [classes], where each class begins among the hits.
    """

    image: np.ndarray
    first: np.ndarray
    hits: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    hit_first: np.ndarray


class Resampler:
    """COCO's twelve numbers for any multiset of a truth's images.

    Counting an image n times gives what COCO's evaluation gives with n copies of it.
    """

    def __init__(self, truth: GroundTruth, results: Results) -> None:
        """Matches once; every resample then only counts."""
        matches = match(truth, results)
        self._classes = len(truth.names)
        image = results.image[matches.rows].astype(np.int32)
        label = results.label[matches.rows]
        self._num_images = len(truth.image_ids)
        self._truths = [
            (truth.image[real], truth.label[real]) for real in matches.real
        ]  # by area range
        every = np.arange(self._classes)
        self._layers = []
        for area in range(len(COCO_AREAS)):
            for number in range(len(IOU_THRESHOLDS)):
                counts = (~matches.ignored[area, number]).nonzero()[0]
                hits = (matches.truth[area, number, counts] >= 0).nonzero()[0]
                of_hits = label[counts[hits]]
                layer = _Layer(
                    image=image[counts],
                    first=np.searchsorted(label[counts], every),
                    hits=hits,
                    label=of_hits,
                    rank=matches.rank[counts[hits]],
                    hit_first=np.searchsorted(of_hits, every),
                )
                self._layers.append(layer)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The twelve numbers.

        Args:
            weights: int64 [images], how often each image counts.

        Returns:
            float64 [12], in [0, 1]; -1 where nothing is to be found.
        """
        areas, steps = len(COCO_AREAS), len(IOU_THRESHOLDS)
        precision = np.full((areas, steps, self._classes), np.nan)
        recall = np.full((3, areas, steps, self._classes), np.nan)
        for area in range(areas):
            owner, label = self._truths[area]
            wanted = np.bincount(label, weights[owner], self._classes).astype(np.int64)
            there = wanted > 0
            needed = _least_counts(wanted[there])
            for number in range(steps):
                layer = self._layers[area * steps + number]
                hits = weights[layer.image[layer.hits]]
                values = self._precision(layer, weights, hits, needed, there)
                precision[area, number, there] = values
                for which, limit in enumerate((1, 10, 100)):
                    got = np.bincount(
                        layer.label, hits * (layer.rank < limit), minlength=self._classes
                    )
                    recall[which, area, number, there] = got[there] / wanted[there]
        numbers = [
            *(precision[0], precision[0, 0], precision[0, 5], *precision[1:]),
            *(recall[0, 0], recall[1, 0], recall[2, 0], *recall[2, 1:]),
        ]
        return np.array([_mean(values) for values in numbers])

    def _precision(
        self,
        layer: _Layer,
        weights: np.ndarray,
        hits: np.ndarray,
        needed: np.ndarray,
        there: np.ndarray,
    ) -> np.ndarray:
        """[classes there], the mean over the 101 recalls of the greatest precision from there on.

        Only right boxes are looked at: there recall rises, and there precision is greatest.
        """
        if not len(hits):
            return np.zeros(len(needed))
        seen = np.r_[0, np.cumsum(weights[layer.image], dtype=np.int64)]
        right = np.r_[0, np.cumsum(hits, dtype=np.int64)]
        so_far = right[1:] - right[layer.hit_first][layer.label]
        among = seen[layer.hits + 1] - seen[layer.first][layer.label]
        value = so_far / np.maximum(among, 1)

        down = self._classes - 1 - layer.label  # rises from the end, so that classes stay apart
        best = np.maximum.accumulate((value + 2 * down)[::-1])[::-1] - 2 * down
        most = int(right[-1]) + 1
        classes = there.nonzero()[0]
        wanted = np.minimum(needed, most)  # [classes there, 101]
        apart = so_far + layer.label * (most + 1)
        at = np.searchsorted(apart, wanted + (classes * (most + 1))[:, None])
        ends = np.r_[layer.hit_first[1:], len(hits)][classes][:, None]
        reached = at < ends
        return np.where(reached, best[np.minimum(at, len(best) - 1)], 0.0).mean(1)


def _least_counts(wanted: np.ndarray) -> np.ndarray:
    """[n, 101], the least count of finds whose recall of `wanted` [n] truths is at least r."""
    n = wanted[:, None]
    count = np.ceil(RECALLS * n).astype(np.int64)
    count = np.where((count - 1) / n >= RECALLS, count - 1, count)
    return np.maximum(np.where(count / n < RECALLS, count + 1, count), 0)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else -1.0


def bootstrap(
    models: Sequence[Resampler], num_images: int, *, seed: int, resamples: int
) -> np.ndarray:
    """The twelve numbers of each model on the same resampled images, float64 [models, resamples, 12].

    NaN where a resample has nothing of a kind (no large truth, say).
    """
    rng = np.random.default_rng(seed)
    samples = np.empty((len(models), resamples, 12))
    for number in tqdm(range(resamples), desc="resample", leave=False, disable=None):
        weights = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        for which, model in enumerate(models):
            samples[which, number] = model(weights)
    samples[samples < 0] = np.nan
    return samples


def interval(
    samples: np.ndarray, values: Sequence[float], lowest: float = 0.0
) -> list[tuple[float, float] | None]:
    """95 % bounds of each number; None where there are no samples.

    The basic interval (Davison and Hinkley, "Bootstrap Methods", 1997, section 5.2), the samples'
    quantiles mirrored at the number itself: few images give too high an AP, and resamples of them once
    more too high a one, so that the quantiles themselves lie on the wrong side.

    Args:
        samples: float64 [resamples, n].
        values: [n], from all images.
        lowest: of what a number can be; the greatest is 1.
    """
    tail = (1 - COVERAGE) / 2
    bounds = []
    for column, value in zip(samples.T, values, strict=True):
        column = column[~np.isnan(column)]
        if not len(column):
            bounds.append(None)
            continue
        ends = 2 * value - np.quantile(column, [1 - tail, tail])
        low, high = ends.clip(lowest, 1).tolist()
        bounds.append((low, high))
    return bounds
