"""Which found box belongs to which true one, by COCO's rules; what intervals and error analyses count.

The twelve numbers themselves come from an evaluator of `backends`; this gives the matches behind them,
which hotcoco hands out only as a million dictionaries. `tests/evaluation/test_matching.py` compares
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
MAX_DETECTIONS = 100  # of an image and class that COCO judges, the best ones


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Of each judged box, the truth it was matched with.

    Attributes:
        rows: int64 [d], the judged rows of the results: class by class, best first; boxes of equal score
            by image, then by row, as COCO has it.
        rank: int64 [d], 0 for the best box of its image and class.
        truth: int32 [A, T, d], row of the truth, -1 for none; A area ranges, T IoU thresholds.
        ignored: bool [A, T, d], neither right nor wrong: matched with a crowd or a truth of another
            size, or unmatched and itself of another size.
        real: bool [A, m], truths that are to be found.
    """

    rows: np.ndarray
    rank: np.ndarray
    truth: np.ndarray
    ignored: np.ndarray
    real: np.ndarray


def match(
    truth: GroundTruth,
    results: Results,
    *,
    areas: tuple[AreaRange, ...] = COCO_AREAS,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    limit: int = MAX_DETECTIONS,
) -> Matches:
    """COCO's greedy matching, for all images and classes at once.

    The best box of an image and class chooses first: among the truths it overlaps by at least the
    threshold, and that no better box has taken, the one of the greatest IoU (of equals the last); one
    that is not to be found, a crowd or of another size, only where no other is left.

    Args:
        truth, results: checked.
        areas: ranges of px^2, both ends included.
        thresholds: least IoU.
        limit: the best boxes of an image and class that are judged.
    """
    classes = len(truth.names)
    key = results.image * classes + results.label
    order = np.lexsort((-results.score, key))  # stable
    key = key[order]
    first = np.r_[True, key[1:] != key[:-1]] if len(key) else np.zeros(0, bool)
    starts = first.nonzero()[0]
    rank = np.arange(len(key)) - np.repeat(starts, np.diff(np.r_[starts, len(key)]))
    judged = rank < limit
    order, key, rank = order[judged], key[judged], rank[judged]

    low, high = np.array([[a, b] for _, a, b in areas], np.float64).T[:, :, None]
    real = ~truth.crowd & (truth.area >= low) & (truth.area <= high)  # [A, m]
    found = np.full((len(areas), len(thresholds), len(order)), -1, np.int32)
    _match_groups(truth, results, order, key, rank, real, thresholds, found)

    size = results.boxes_xywh[order, 2] * results.boxes_xywh[order, 3]
    outside = (size < low) | (size > high)  # [A, d]
    unmatched = found < 0
    ignored = np.where(unmatched, outside[:, None], False)
    for area in range(len(areas)):
        ignored[area] |= ~unmatched[area] & ~np.append(real[area], False)[found[area]]
    final = np.lexsort((order, results.image[order], -results.score[order], results.label[order]))
    # within an image and class the order by score is that of the rows already
    return Matches(order[final], rank[final], found[..., final], ignored[..., final], real)


def _match_groups(
    truth: GroundTruth,
    results: Results,
    order: np.ndarray,
    key: np.ndarray,
    rank: np.ndarray,
    real: np.ndarray,
    thresholds: np.ndarray,
    found: np.ndarray,
) -> None:
    """Fills in `found`. A group is an image and class; groups with similarly many truths go together,
    a step for the best box of each, one for the second best ...
    """
    truth_key = truth.image * len(truth.names) + truth.label
    by_key = np.argsort(truth_key, kind="stable")
    groups, begins, counts = np.unique(truth_key[by_key], return_index=True, return_counts=True)
    begin_of = np.searchsorted(key, groups)
    boxes_of = np.searchsorted(key, groups, side="right") - begin_of
    bucket = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for size in np.unique(bucket).tolist():
        mine = (bucket == size) & (boxes_of > 0)
        if not mine.any():
            continue
        column = np.arange(counts[mine].max())
        there = column < counts[mine][:, None]  # [P, G]
        slots = by_key[np.where(there, begins[mine][:, None] + column, 0)]
        crowd = truth.crowd[slots]
        wanted = real[:, slots].transpose(1, 0, 2)[:, :, None]  # [P, A, 1, G]
        free = np.broadcast_to(
            there[:, None, None], (*wanted.shape[:2], len(thresholds), len(column))
        ).copy()
        for step in range(boxes_of[mine].max()):
            has = (boxes_of[mine] > step).nonzero()[0]
            at = begin_of[mine][has] + step
            overlap = pair_iou(
                results.boxes_xywh[order[at]], truth.boxes_xywh[slots[has]], crowd[has]
            )
            ious = overlap[:, None, None]  # [p, 1, 1, G]
            fits = free[has] & (ious >= limits)
            chosen = np.full(fits.shape[:3], -1)
            for preferred in (False, True):
                usable = fits & (wanted[has] == preferred)
                value = np.where(usable, ious, -1.0)
                last = fits.shape[3] - 1 - value[..., ::-1].argmax(-1)
                chosen = np.where(usable.any(-1), last, chosen)
            p, a, t = (chosen >= 0).nonzero()
            slot = chosen[p, a, t]
            found[a, t, at[p]] = slots[has[p], slot]
            free[has[p], a, t, slot] = crowd[has[p], slot]  # a crowd can be matched again


def pair_iou(boxes_xywh: np.ndarray, truths_xywh: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[p, G] of boxes [p, 4] and truths [p, G, 4]; with a crowd the share of the box that is in it.

    The same operations in the same order as pycocotools', for the same bits.
    """
    b = boxes_xywh[:, None]
    t = truths_xywh
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
