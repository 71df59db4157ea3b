"""Kinds of errors, and dAP: how much AP50 is lost to each of them.

The kinds are those of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
Errors", 2020, section 2.2). Each dAP is the difference of two COCO APs: of the results as they are,
and of the results with that kind of error corrected.
"""

from dataclasses import dataclass, replace

import numpy as np

from detector.evaluation.backends import Backend
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.matching import Matches, pair_iou

# IoU of a match; IoU below which a detection is background
MATCH_IOU, BACKGROUND_IOU = 0.5, 0.1
KINDS = ("class", "localization", "both", "duplicate", "background", "missed")
CLASS, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, _ = range(len(KINDS))


@dataclass(frozen=True, slots=True, eq=False)
class OverlappingPairs:
    """Detections and ground truth of one image that overlap, whatever their classes.

    Attributes:
        detection: int64 [n], rows of the results.
        gt: int64 [n], rows of the ground truth.
        iou: float64 [n], > 0; of a crowd, the share of the detection inside it.
    """

    detection: np.ndarray
    gt: np.ndarray
    iou: np.ndarray

    @classmethod
    def find(
        cls, ground_truth: GroundTruth, results: Results, rows: np.ndarray
    ) -> "OverlappingPairs":
        """Finds the pairs of the given rows of the results."""
        by_image = np.argsort(ground_truth.image, kind="stable")
        sorted_image = ground_truth.image[by_image]
        begin = np.searchsorted(sorted_image, results.image[rows])
        count = np.searchsorted(sorted_image, results.image[rows], "right") - begin
        detection = np.repeat(rows, count)
        step = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
        gt = by_image[np.repeat(begin, count) + step]
        boxes, gt_boxes = results.boxes_xywh[detection], ground_truth.boxes_xywh[gt][:, None]
        iou = pair_iou(boxes, gt_boxes, ground_truth.crowd[gt][:, None])[:, 0]
        overlapping = iou > 0
        return cls(detection[overlapping], gt[overlapping], iou[overlapping])

    def best(self, num_rows: int, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """IoU and ground truth of each detection's best pair among the `kept` ones, [num_rows] each.

        IoU 0 and row -1 for a detection without a pair.
        """
        iou, gt = np.zeros(num_rows), np.full(num_rows, -1)
        at = kept.nonzero()[0]
        at = at[np.argsort(self.iou[at], kind="stable")]
        iou[self.detection[at]], gt[self.detection[at]] = self.iou[at], self.gt[at]
        return iou, gt


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """The errors of a set of results.

    Attributes:
        kind: int64 [d], index into `KINDS`; -1 for detections that are correct, ignored or not
            evaluated.
        gt: int64 [d], the ground truth that the error is about; -1 for none.
        missed: bool [m], ground truth that no detection matches, not even if its class or location were
            corrected.
    """

    kind: np.ndarray
    gt: np.ndarray
    missed: np.ndarray


def classify_errors(ground_truth: GroundTruth, results: Results, matches: Matches) -> Errors:
    """Classifies each false positive, and finds the missed ground truth; `matches` at IoU 0.5."""
    wrong = matches.rows[matches.false_positive()]
    pairs = OverlappingPairs.find(ground_truth, results, wrong)
    countable = ~ground_truth.crowd[pairs.gt]
    same_class = results.label[pairs.detection] == ground_truth.label[pairs.gt]
    count = len(results)
    same_iou, same_gt = pairs.best(count, countable & same_class)
    other_iou, other_gt = pairs.best(count, countable & ~same_class)
    chosen = np.select(
        [
            same_iou[wrong] >= MATCH_IOU,
            other_iou[wrong] >= MATCH_IOU,
            same_iou[wrong] >= BACKGROUND_IOU,
            other_iou[wrong] >= BACKGROUND_IOU,
        ],
        [DUPLICATE, CLASS, LOCALIZATION, BOTH],
        BACKGROUND,
    )
    kind, gt = np.full(count, -1), np.full(count, -1)
    kind[wrong] = chosen
    about_same = np.isin(chosen, (DUPLICATE, LOCALIZATION))
    gt[wrong] = np.where(about_same, same_gt[wrong], other_gt[wrong])
    gt[wrong[chosen == BACKGROUND]] = -1
    missed = matches.missed()
    missed[gt[np.isin(kind, (CLASS, LOCALIZATION))]] = False
    return Errors(kind, gt, missed)


def compute_dap(
    ground_truth: GroundTruth, results: Results, backend: Backend, errors: Errors
) -> dict[str, tuple[int, float]]:
    """For each kind, the number of errors and dAP: how much AP50 rises when they are corrected."""

    def ap50(ground_truth: GroundTruth, results: Results) -> float:
        value = float(backend.evaluate(ground_truth, results, None).stats[1])
        return value if value >= 0 else 1.0  # without ground truth no AP is lost

    current = ap50(ground_truth, results)
    dap = {}
    for number, name in enumerate(KINDS):
        count = int((errors.missed if name == "missed" else errors.kind == number).sum())
        corrected = correct_errors(ground_truth, results, errors, name)
        dap[name] = (count, ap50(*corrected) - current if count else 0.0)
    return dap


def correct_errors(
    ground_truth: GroundTruth, results: Results, errors: Errors, name: str
) -> tuple[GroundTruth, Results]:
    """Ground truth and results without the errors of one kind.

    A wrong class is replaced by the ground truth's, a badly localized box by the ground-truth box; other
    false positives are removed, and so is missed ground truth.
    """
    if name == "missed":
        columns = ("image", "label", "boxes_xywh", "area", "crowd")
        kept = {column: getattr(ground_truth, column)[~errors.missed] for column in columns}
        return replace(ground_truth, **kept), results
    wrong = errors.kind == KINDS.index(name)
    if name == "class":
        label = results.label.copy()
        label[wrong] = ground_truth.label[errors.gt[wrong]]
        return ground_truth, replace(results, label=label)
    if name == "localization":
        boxes = results.boxes_xywh.copy()
        boxes[wrong] = ground_truth.boxes_xywh[errors.gt[wrong]]
        return ground_truth, replace(results, boxes_xywh=boxes)
    return ground_truth, results.rows(~wrong)
