"""Matching of detections to ground truth by COCO's rules, for intervals and error analysis.

The twelve numbers themselves come from a backend (`backends`); this gives the matches behind them,
which hotcoco returns only as a million dictionaries. `tests/evaluation/test_matching.py` compares
them with those of pycocotools, box by box.
"""

from dataclasses import dataclass

import numpy as np

from detector.evaluation.backends import AreaRange
from detector.evaluation.ground_truth import GroundTruth, Results

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
COCO_AREAS: tuple[AreaRange, ...] = (
    ("all", 0, 1e10),
    ("small", 0, 32.0**2),
    ("medium", 32.0**2, 96.0**2),
    ("large", 96.0**2, 1e10),
)
ALL_SIZES: tuple[AreaRange, ...] = COCO_AREAS[:1]
IOU_HALF = np.array([0.5])
MAX_DETECTIONS = 100  # per image and class, the best ones; COCO evaluates no more


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The ground truth that each evaluated detection is matched to.

    A: area ranges, T: IoU thresholds, d: evaluated detections, m: ground-truth boxes.

    Attributes:
        rows: int64 [d], the evaluated rows of the results: class by class, best first; detections of
            equal score by image, then by row, as COCO has it.
        rank: int64 [d], 0 for the best detection of its image and class.
        gt_rows: int32 [A, T, d], the matched row of the ground truth, -1 for none.
        ignored: bool [A, T, d], neither true nor false positive: matched to a crowd or to ground truth
            of another size, or unmatched and itself of another size.
        counted: bool [A, m], ground truth that counts as missed unless it is matched.
    """

    rows: np.ndarray
    rank: np.ndarray
    gt_rows: np.ndarray
    ignored: np.ndarray
    counted: np.ndarray

    def true_positive(self, area: int = 0, threshold: int = 0) -> np.ndarray:
        """Bool [d]; with `false_positive` and `ignored` it covers each detection once."""
        return (self.gt_rows[area, threshold] >= 0) & ~self.ignored[area, threshold]

    def false_positive(self, area: int = 0, threshold: int = 0) -> np.ndarray:
        """Bool [d], detections without a match that are not ignored."""
        return (self.gt_rows[area, threshold] < 0) & ~self.ignored[area, threshold]

    def missed(self, area: int = 0, threshold: int = 0) -> np.ndarray:
        """Bool [m], ground truth that counts and is not matched."""
        missed = self.counted[area].copy()
        matched = self.gt_rows[area, threshold]
        missed[matched[matched >= 0]] = False
        return missed


def match(
    ground_truth: GroundTruth,
    results: Results,
    *,
    areas: tuple[AreaRange, ...] = COCO_AREAS,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    limit: int = MAX_DETECTIONS,
) -> Matches:
    """Matches greedily as COCO does, for all images and classes at once.

    The detections of an image and class are matched in descending order of score, each to the ground
    truth of greatest IoU (of equals, the last) among those that reach the threshold and are not yet
    matched. Ground truth that does not count (a crowd, another size) is matched only if no other is
    available.

    Args:
        ground_truth, results: checked.
        areas: ranges of px^2, both ends included.
        thresholds: least IoU of a match.
        limit: detections evaluated per image and class, the best ones.
    """
    classes = len(ground_truth.names)
    key = results.image * classes + results.label
    order = np.lexsort((-results.score, key))  # stable
    key = key[order]
    first = np.r_[True, key[1:] != key[:-1]] if len(key) else np.zeros(0, bool)
    starts = first.nonzero()[0]
    rank = np.arange(len(key)) - np.repeat(starts, np.diff(np.r_[starts, len(key)]))
    evaluated = rank < limit
    order, key, rank = order[evaluated], key[evaluated], rank[evaluated]

    low, high = np.array([[a, b] for _, a, b in areas], np.float64).T[:, :, None]
    in_range = (ground_truth.area >= low) & (ground_truth.area <= high)  # [A, m]
    counted = in_range & ~ground_truth.crowd
    gt_rows = np.full((len(areas), len(thresholds), len(order)), -1, np.int32)
    _match_groups(ground_truth, results, order, key, counted, thresholds, gt_rows)

    size = results.boxes_xywh[order, 2] * results.boxes_xywh[order, 3]
    outside = (size < low) | (size > high)  # [A, d]
    unmatched = gt_rows < 0
    ignored = np.where(unmatched, outside[:, None], False)
    for area in range(len(areas)):
        ignored[area] |= ~unmatched[area] & ~np.append(counted[area], False)[gt_rows[area]]
    final = np.lexsort((order, results.image[order], -results.score[order], results.label[order]))
    return Matches(order[final], rank[final], gt_rows[..., final], ignored[..., final], counted)


def _match_groups(
    ground_truth: GroundTruth,
    results: Results,
    order: np.ndarray,
    key: np.ndarray,
    counted: np.ndarray,
    thresholds: np.ndarray,
    gt_rows: np.ndarray,
) -> None:
    """Fills in `gt_rows`; a group is the boxes of one image and class.

    Groups with similar numbers of ground-truth boxes are matched together: first the best detection of
    each group, then the second best, and so on.
    """
    gt_key = ground_truth.image * len(ground_truth.names) + ground_truth.label
    by_key = np.argsort(gt_key, kind="stable")
    groups, begins, counts = np.unique(gt_key[by_key], return_index=True, return_counts=True)
    begin_of = np.searchsorted(key, groups)
    boxes_of = np.searchsorted(key, groups, side="right") - begin_of
    bucket = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for size in np.unique(bucket).tolist():
        mine = (bucket == size) & (boxes_of > 0)
        if not mine.any():
            continue
        column = np.arange(counts[mine].max())
        exists = column < counts[mine][:, None]  # [P, G]
        slots = by_key[np.where(exists, begins[mine][:, None] + column, 0)]
        crowd = ground_truth.crowd[slots]
        countable = counted[:, slots].transpose(1, 0, 2)[:, :, None]  # [P, A, 1, G]
        free = np.broadcast_to(
            exists[:, None, None], (*countable.shape[:2], len(thresholds), len(column))
        ).copy()
        for step in range(boxes_of[mine].max()):
            has = (boxes_of[mine] > step).nonzero()[0]
            at = begin_of[mine][has] + step
            overlap = pair_iou(
                results.boxes_xywh[order[at]], ground_truth.boxes_xywh[slots[has]], crowd[has]
            )
            ious = overlap[:, None, None]  # [p, 1, 1, G]
            fits = free[has] & (ious >= limits)
            chosen = np.full(fits.shape[:3], -1)
            for is_counted in (False, True):
                usable = fits & (countable[has] == is_counted)
                value = np.where(usable, ious, -1.0)
                last = fits.shape[3] - 1 - value[..., ::-1].argmax(-1)
                chosen = np.where(usable.any(-1), last, chosen)
            p, a, t = (chosen >= 0).nonzero()
            slot = chosen[p, a, t]
            gt_rows[a, t, at[p]] = slots[has[p], slot]
            free[has[p], a, t, slot] = crowd[has[p], slot]  # a crowd can match several detections


def pair_iou(boxes_xywh: np.ndarray, gt_xywh: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU [p, G] of boxes [p, 4] and ground truth [p, G, 4]; of a crowd, the share of the box inside it.

    The operations and their order are pycocotools', for the same bits.
    """
    b = boxes_xywh[:, None]
    t = gt_xywh
    wide = np.minimum(b[..., 0] + b[..., 2], t[..., 0] + t[..., 2]) - np.maximum(
        b[..., 0], t[..., 0]
    )
    tall = np.minimum(b[..., 1] + b[..., 3], t[..., 1] + t[..., 3]) - np.maximum(
        b[..., 1], t[..., 1]
    )
    inter = np.where((wide > 0) & (tall > 0), wide * tall, 0.0)
    own = b[..., 2] * b[..., 3]
    union = np.where(crowd, own, own + t[..., 2] * t[..., 3] - inter)
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
