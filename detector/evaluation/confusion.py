"""The confusion matrix and the images with the most errors, at a confidence threshold and IoU 0.5."""

from dataclasses import dataclass, replace

import numpy as np

from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.matching import ALL_SIZES, IOU_HALF, match


def count_confusions(ground_truth: GroundTruth, results: Results) -> np.ndarray:
    """The confusion matrix, int64 [classes + 1, classes + 1]: ground truth by predicted class.

    The last row and column are background. Detections are matched whatever their class, and all of them
    count, not only COCO's best 100 per image and class.

    Args:
        ground_truth: checked.
        results: detections above the confidence threshold.
    """
    one_class = replace(ground_truth, names=("object",), label=np.zeros_like(ground_truth.label))
    unlabelled = replace(results, label=np.zeros_like(results.label))
    matches = match(one_class, unlabelled, areas=ALL_SIZES, thresholds=IOU_HALF, limit=len(results))
    background = len(ground_truth.names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    gt_rows, counts = matches.gt_rows[0, 0], ~matches.ignored[0, 0]
    actual = np.where(gt_rows >= 0, np.append(ground_truth.label, background)[gt_rows], background)
    np.add.at(matrix, (actual[counts], results.label[matches.rows[counts]]), 1)
    missed = matches.missed()
    np.add.at(matrix, (ground_truth.label[missed], np.full(int(missed.sum()), background)), 1)
    return matrix


@dataclass(frozen=True, slots=True, eq=False)
class ImageErrors:
    """The errors in one image at the confidence threshold.

    Attributes:
        image: position in the ground truth's `image_ids`.
        missed: int64 [n], rows of the ground truth.
        matched: int64 [k], rows of the ground truth that have a detection.
        false_positives: int64 [m], rows of the results.
    """

    image: int
    missed: np.ndarray
    matched: np.ndarray
    false_positives: np.ndarray


def find_worst_images(
    ground_truth: GroundTruth, results: Results, threshold: float, limit: int = 12
) -> list[ImageErrors]:
    """The images with the most missed objects and false positives of score `threshold` or more."""
    rows = (results.score >= threshold).nonzero()[0]
    shown = results.rows(rows)
    matches = match(ground_truth, shown, areas=ALL_SIZES, thresholds=IOU_HALF, limit=len(shown))
    false_positives = rows[matches.rows[matches.false_positive()]]
    is_missed = matches.missed()
    missed, matched = is_missed.nonzero()[0], (matches.counted[0] & ~is_missed).nonzero()[0]
    count = len(ground_truth.image_ids)
    errors = np.bincount(ground_truth.image[missed], minlength=count)
    errors += np.bincount(results.image[false_positives], minlength=count)
    order = np.argsort(-errors, kind="stable")[:limit]
    return [
        ImageErrors(
            int(image),
            missed[ground_truth.image[missed] == image],
            matched[ground_truth.image[matched] == image],
            false_positives[results.image[false_positives] == image],
        )
        for image in order
        if errors[image]
    ]
