"""Assigners that choose among the candidate matches of `assign` by what the network predicts.

A candidate is an (anchor, cell) that can reach the ground-truth box: `assign` with `loss.anchor_ratio`
lists them. `ASSIGNERS` has the choices by name; the tests have slow references. None changes what the
decoder can express, so weights trained with different assigners are exchangeable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.registry import Registry

EPS = 1e-8


@dataclass(frozen=True, slots=True)
class CandidateScores:
    """What is known of the m candidates of a batch, all levels together.

    Attributes:
        box: int64 [m], index of the ground-truth box.
        slot: int64 [m], a number for its (level, image, anchor, cell): equal ones compete.
        iou: float32 [m] in [0, 1], of the predicted box with the ground truth.
        score: float32 [m] in [0, 1], the confidence in the box's class: objectness x class probability.
        class_cost: float32 [m] >= 0, binary cross-entropy of sqrt(confidence) with the box's class, the
            sum over classes.
    """

    box: Tensor
    slot: Tensor
    iou: Tensor
    score: Tensor
    class_cost: Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """The choice among m candidates.

    Attributes:
        keep: bool [m].
        quality: float32 [m], see `Matches.quality`; None: all weigh the same.
    """

    keep: Tensor
    quality: Tensor | None = None


Assigner = Callable[[CandidateScores], Assignment]
ASSIGNERS: Registry[Assigner | None] = Registry("assigner")
ASSIGNERS.register("anchor_ratio")(None)  # keeps all candidates: the yolov4-csp recipe


@ASSIGNERS.register("simota")
def assign_simota(candidates: CandidateScores) -> Assignment:
    """Each box takes the k candidates of lowest cost; k is the sum of its ten largest IoUs, at least 1.

    The cost is the class cost - 3 log(IoU). A slot that several boxes want goes to that of lowest cost.
    Ge et al., "YOLOX", 2021, section 2.1 (SimOTA); k as in Ge et al., "OTA", 2021, section 3.3.
    """
    box, iou = candidates.box, candidates.iou
    cost = candidates.class_cost - 3 * (iou + EPS).log()
    boxes = int(box.max()) + 1 if len(box) else 0
    among_ten = rank_within(box, -iou) < 10
    k = iou.new_zeros(boxes).index_add_(0, box[among_ten], iou[among_ten]).floor().clamp(min=1)
    keep = rank_within(box, cost) < k[box]
    return Assignment(_resolve_conflicts(keep, candidates.slot, cost))


@ASSIGNERS.register("task_aligned")
def assign_task_aligned(candidates: CandidateScores) -> Assignment:
    """Each box takes the 13 candidates that align best: of the largest t = score x IoU^6.

    A slot that several boxes want goes to the one of largest IoU. The quality is t, scaled so that the
    best of each box gets the box's largest IoU. Feng et al., "TOOD", 2021, equations 1 and 8.
    """
    box, iou = candidates.box, candidates.iou
    alignment = candidates.score * iou.pow(6)
    keep = rank_within(box, -alignment) < 13
    keep = _resolve_conflicts(keep, candidates.slot, -iou)
    boxes = int(box.max()) + 1 if len(box) else 0
    zeros = iou.new_zeros(boxes)
    largest_t = zeros.scatter_reduce(0, box[keep], alignment[keep], "amax")
    largest_iou = zeros.scatter_reduce(0, box[keep], iou[keep], "amax")
    quality = alignment * (largest_iou / largest_t.clamp(min=1e-30))[box]
    return Assignment(keep, quality.clamp(max=1))


def rank_within(group: Tensor, values: Tensor) -> Tensor:
    """Rank, from 0, of each of m values among those of its group; of equal ones the first comes first."""
    order = values.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, then by value
    members = torch.bincount(group) if len(group) else group
    starts = members.cumsum(0) - members
    places = torch.arange(len(group), device=group.device)
    rank = torch.empty_like(order)
    rank[order] = places - starts[group[order]]
    return rank


def _resolve_conflicts(keep: Tensor, slot: Tensor, cost: Tensor) -> Tensor:
    """Of the kept candidates that share a slot, only the one of lowest cost."""
    kept = keep.nonzero()[:, 0]
    group = slot[kept].unique(return_inverse=True)[1]
    keep = torch.zeros_like(keep)
    keep[kept[rank_within(group, cost[kept]) == 0]] = True
    return keep
