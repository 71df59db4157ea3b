"""The result of one model, and models compared by paired bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.evaluation.coco_ap import METRICS
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.intervals import (
    Interval,
    Resampler,
    bootstrap,
    compute_confidence_intervals,
)


@dataclass(slots=True)
class ModelResult:
    """The numbers of one model.

    Attributes:
        source: its weights or results file.
        detector, activation: of the model; activation is "-" for a results file.
        metrics: the twelve numbers.
        intervals: their 95 % confidence intervals, where computed.
        difference: to the first model of a comparison, each with its paired interval, where computed.
        about: what else goes into the JSON: size, precision, evaluator ...
    """

    source: str
    detector: str
    activation: str
    metrics: dict[str, float]
    intervals: Sequence[Interval | None] | None = None
    difference: Sequence[tuple[float, Interval | None]] | None = None
    about: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        """Everything; null for a metric without ground truth."""
        values: dict[str, Any] = {
            "source": self.source,
            "detector": self.detector,
            "activation": self.activation,
            **self.about,
            "metrics": {n: v if v >= 0 else None for n, v in self.metrics.items()},
        }
        if self.intervals is not None:
            values["interval_95"] = dict(zip(METRICS, self.intervals, strict=True))
        if self.difference is not None:
            values["difference_to_first"] = {
                name: {"difference": value, "interval_95": interval}
                for name, (value, interval) in zip(METRICS, self.difference, strict=True)
            }
        return values


def compare_models(
    rows: Sequence[ModelResult],
    ground_truth: GroundTruth,
    results: Sequence[Results],
    *,
    resamples: int,
    seed: int,
) -> None:
    """Sets the intervals of each row, and its difference to the first row with a paired interval.

    Args:
        rows: of the models.
        ground_truth: the same for all.
        results: of each model.
        resamples: of the images, the same ones for every model.
        seed: of the resamples.
    """
    models = [Resampler(ground_truth, each) for each in results]
    num_images = len(ground_truth.image_ids)
    samples = bootstrap(models, num_images, seed=seed, resamples=resamples)
    metrics = np.array([list(row.metrics.values()) for row in rows])
    for number, row in enumerate(rows):
        row.intervals = compute_confidence_intervals(samples[number], metrics[number].tolist())
        if number:
            change = (metrics[number] - metrics[0]).tolist()
            paired = compute_confidence_intervals(samples[number] - samples[0], change, lowest=-1)
            row.difference = list(zip(change, paired, strict=True))
