"""Probable label errors: places where the annotation rather than the model may be wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation.error_types import (
    BACKGROUND,
    CLASS,
    MATCH_IOU,
    Errors,
    OverlappingPairs,
)
from detector.evaluation.ground_truth import GroundTruth, Results

NO_LABEL, OTHER_CLASS, NO_DETECTION = "no label", "other class", "nothing there"  # in the JSON


@dataclass(frozen=True, slots=True)
class LabelError:
    """A probable label error.

    Attributes:
        kind: `NO_LABEL` (a confident detection without ground truth), `OTHER_CLASS` (a confident
            detection of another class than the label) or `NO_DETECTION` (a label without a detection).
        image: position in the ground truth's `image_ids`.
        box_xywh: pixels.
        predicted, labelled: class names; None where there is none.
        score: of the detection; of a label without one, 1 - the greatest IoU of any detection.
    """

    kind: str
    image: int
    box_xywh: tuple[float, float, float, float]
    predicted: str | None
    labelled: str | None
    score: float

    def as_json(self) -> dict[str, Any]:
        """The values under the keys of label_errors.json."""
        return {
            "kind": self.kind,
            "image": self.image,
            "box_xywh": self.box_xywh,
            "found": self.predicted,
            "labelled": self.labelled,
            "score": self.score,
        }


def find_label_errors(
    ground_truth: GroundTruth, results: Results, errors: Errors, threshold: float
) -> list[LabelError]:
    """Finds probable label errors; the kinds alternate, the most probable of each kind first.

    Args:
        ground_truth, results: checked.
        errors: of the results.
        threshold: least score of a confident detection.
    """
    lists = [
        list(_from_detections(ground_truth, results, errors, threshold, BACKGROUND, NO_LABEL)),
        list(_from_detections(ground_truth, results, errors, threshold, CLASS, OTHER_CLASS)),
        list(_from_labels(ground_truth, results)),
    ]
    longest = max(map(len, lists))
    return [one[i] for i in range(longest) for one in lists if i < len(one)]


def _from_detections(
    ground_truth: GroundTruth,
    results: Results,
    errors: Errors,
    threshold: float,
    error: int,
    kind: str,
) -> Iterator[LabelError]:
    """Yields the confident detections with that error, by descending score."""
    rows = ((errors.kind == error) & (results.score >= threshold)).nonzero()[0]
    for row in rows[np.argsort(-results.score[rows], kind="stable")]:
        gt = errors.gt[row]
        yield LabelError(
            kind=kind,
            image=int(results.image[row]),
            box_xywh=_as_tuple(results.boxes_xywh[row]),
            predicted=ground_truth.names[results.label[row]],
            labelled=ground_truth.names[ground_truth.label[gt]] if gt >= 0 else None,
            score=float(results.score[row]),
        )


def _from_labels(ground_truth: GroundTruth, results: Results) -> Iterator[LabelError]:
    """Yields labels that no detection of any class or score overlaps at IoU 0.5, by ascending IoU."""
    pairs = OverlappingPairs.find(ground_truth, results, np.arange(len(results)))
    overlap = np.zeros(len(ground_truth.image))
    np.maximum.at(overlap, pairs.gt, pairs.iou)
    rows = ((overlap < MATCH_IOU) & ~ground_truth.crowd).nonzero()[0]
    for row in rows[np.argsort(overlap[rows], kind="stable")]:
        yield LabelError(
            kind=NO_DETECTION,
            image=int(ground_truth.image[row]),
            box_xywh=_as_tuple(ground_truth.boxes_xywh[row]),
            predicted=None,
            labelled=ground_truth.names[ground_truth.label[row]],
            score=float(1 - overlap[row]),
        )


def _as_tuple(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, w, h = box.tolist()
    return x, y, w, h
