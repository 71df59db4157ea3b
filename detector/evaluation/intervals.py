"""Confidence intervals of COCO's numbers and of differences between models: a bootstrap over images.

A validation set is one sample of the images that could have been taken. Resampling its images with
replacement shows how much the numbers vary (Efron, "Bootstrap Methods", 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.matching import COCO_AREAS, IOU_THRESHOLDS, RECALLS, match

RESAMPLES = 1000
COVERAGE = 0.95
Interval = tuple[float, float]  # lower and upper end


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """The detections that are not ignored at one area range and IoU threshold: by class, best first.

    Attributes:
        image: int32 [d], of each detection.
        class_start: int64 [classes], where each class begins.
        tp: int64 [h], which of them are true positives.
        label, rank: int64 [h], of the true positives.
        tp_class_start: int64 [classes], where each class begins among the true positives.
    """

    image: np.ndarray
    class_start: np.ndarray
    tp: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    tp_class_start: np.ndarray


class Resampler:
    """COCO's twelve numbers for any multiset of the images.

    Counting an image n times gives the numbers that COCO's evaluation gives for n copies of it.
    """

    def __init__(self, ground_truth: GroundTruth, results: Results) -> None:
        """Matches once, so that a resample only has to count."""
        matches = match(ground_truth, results)
        self._classes = len(ground_truth.names)
        image = results.image[matches.rows].astype(np.int32)
        label = results.label[matches.rows]
        self._ground_truth = [  # (image, label) of the boxes that count, by area range
            (ground_truth.image[counted], ground_truth.label[counted])
            for counted in matches.counted
        ]
        every = np.arange(self._classes)
        self._layers = []
        for area in range(len(COCO_AREAS)):
            for number in range(len(IOU_THRESHOLDS)):
                counts = (~matches.ignored[area, number]).nonzero()[0]
                tp = (matches.gt_rows[area, number, counts] >= 0).nonzero()[0]
                tp_label = label[counts[tp]]
                layer = _Layer(
                    image=image[counts],
                    class_start=np.searchsorted(label[counts], every),
                    tp=tp,
                    label=tp_label,
                    rank=matches.rank[counts[tp]],
                    tp_class_start=np.searchsorted(tp_label, every),
                )
                self._layers.append(layer)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """COCO's twelve numbers.

        Args:
            weights: int64 [images], how often each image counts.

        Returns:
            float64 [12], in [0, 1]; -1 where there is no ground truth.
        """
        areas, steps = len(COCO_AREAS), len(IOU_THRESHOLDS)
        precision = np.full((areas, steps, self._classes), np.nan)
        recall = np.full((3, areas, steps, self._classes), np.nan)
        for area in range(areas):
            owner, label = self._ground_truth[area]
            total = np.bincount(label, weights[owner], self._classes).astype(np.int64)
            present = total > 0
            needed = _count_needed(total[present])
            for number in range(steps):
                layer = self._layers[area * steps + number]
                tp = weights[layer.image[layer.tp]]
                values = self._average_precision(layer, weights, tp, needed, present)
                precision[area, number, present] = values
                for which, limit in enumerate((1, 10, 100)):
                    recalled = np.bincount(
                        layer.label, tp * (layer.rank < limit), minlength=self._classes
                    )
                    recall[which, area, number, present] = recalled[present] / total[present]
        numbers = [
            *(precision[0], precision[0, 0], precision[0, 5], *precision[1:]),
            *(recall[0, 0], recall[1, 0], recall[2, 0], *recall[2, 1:]),
        ]
        return np.array([_mean(values) for values in numbers])

    def _average_precision(
        self,
        layer: _Layer,
        weights: np.ndarray,
        tp: np.ndarray,
        needed: np.ndarray,
        present: np.ndarray,
    ) -> np.ndarray:
        """[present classes], the mean over the 101 recalls of the maximum precision from there on.

        Only the true positives are needed: recall rises and precision peaks nowhere else.
        """
        if not len(tp):
            return np.zeros(len(needed))
        seen = np.r_[0, np.cumsum(weights[layer.image], dtype=np.int64)]
        tp_seen = np.r_[0, np.cumsum(tp, dtype=np.int64)]
        tp_so_far = tp_seen[1:] - tp_seen[layer.tp_class_start][layer.label]
        so_far = seen[layer.tp + 1] - seen[layer.class_start][layer.label]
        value = tp_so_far / np.maximum(so_far, 1)

        down = (
            self._classes - 1 - layer.label
        )  # increases from the end, which keeps classes separate
        best = np.maximum.accumulate((value + 2 * down)[::-1])[::-1] - 2 * down
        most = int(tp_seen[-1]) + 1
        classes = present.nonzero()[0]
        targets = np.minimum(needed, most)  # [present classes, 101]
        apart = tp_so_far + layer.label * (most + 1)
        at = np.searchsorted(apart, targets + (classes * (most + 1))[:, None])
        ends = np.r_[layer.tp_class_start[1:], len(tp)][classes][:, None]
        reached = at < ends
        return np.where(reached, best[np.minimum(at, len(best) - 1)], 0.0).mean(1)


def _count_needed(total: np.ndarray) -> np.ndarray:
    """[n, 101], the least number of true positives among `total` [n] objects for a recall of r."""
    n = total[:, None]
    count = np.ceil(RECALLS * n).astype(np.int64)
    count = np.where((count - 1) / n >= RECALLS, count - 1, count)
    return np.maximum(np.where(count / n < RECALLS, count + 1, count), 0)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else -1.0


def bootstrap(
    models: Sequence[Resampler], num_images: int, *, seed: int, resamples: int
) -> np.ndarray:
    """The twelve numbers of each model on the same resampled images, float64 [models, resamples, 12].

    NaN where a resample has no ground truth (no large objects, say).
    """
    rng = np.random.default_rng(seed)
    samples = np.empty((len(models), resamples, 12))
    for number in tqdm(range(resamples), desc="resample", leave=False, disable=None):
        weights = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        for which, model in enumerate(models):
            samples[which, number] = model(weights)
    samples[samples < 0] = np.nan
    return samples


def compute_confidence_intervals(
    samples: np.ndarray, values: Sequence[float], lowest: float = 0.0, highest: float = 1.0
) -> list[Interval | None]:
    """Computes the 95 % confidence interval of each number; None where there are no samples.

    This is the basic bootstrap interval (Davison and Hinkley, "Bootstrap Methods", 1997, section 5.2),
    which mirrors the quantiles of the samples at the number itself. AP of few images is biased upwards,
    and a resample adds the same bias again, so the quantiles themselves lie on the wrong side.

    Args:
        samples: float64 [resamples, n].
        values: [n], from all images.
        lowest, highest: possible values of a number.
    """
    tail = (1 - COVERAGE) / 2
    intervals: list[Interval | None] = []
    for column, value in zip(samples.T, values, strict=True):
        column = column[~np.isnan(column)]
        if not len(column):
            intervals.append(None)
            continue
        ends = 2 * value - np.quantile(column, [1 - tail, tail])
        low, high = ends.clip(lowest, highest).tolist()
        intervals.append((low, high))
    return intervals
