"""Candidates -> detections: non-maximum suppression (NMS) within a class, and darknet's variant of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from detector.structures import Candidates, Detections

LARGEST_COORDINATE = (
    1e5  # px; boxes are clipped to it when they are compared; larger than any image
)

Suppress = Callable[[Candidates, int], list[Detections]]  # (candidates, images of the batch)


@dataclass(frozen=True, slots=True)
class Postprocess:
    """How raw maps become detections.

    Attributes:
        conf: lowest score of a candidate, exclusive.
        suppress: turns the candidates of a batch into the detections of each image.
    """

    conf: float
    suppress: Suppress


def suppress(
    candidates: Candidates,
    images: int,
    *,
    nms_iou: float,
    max_detections: int,
    across_classes: bool = False,
) -> list[Detections]:
    """Greedy NMS within each image and class; returns the detections of each image, best first.

    Whether a box is kept depends only on boxes of higher score. So the best `max_detections` of an
    image are searched among its best few hundred candidates first, and among more only if those do not
    suffice.

    Args:
        candidates: of the batch.
        images: number of images in the batch.
        nms_iou: a box is suppressed if its IoU with a better one of its class exceeds this.
        max_detections: per image.
        across_classes: a box also suppresses boxes of other classes.
    """
    order = candidates.scores.argsort(descending=True, stable=True)
    candidates = candidates[order[candidates.image[order].argsort(stable=True)]]
    totals = candidates.image.bincount(minlength=images)
    first = totals.cumsum(0) - totals
    rank = torch.arange(len(candidates.image), device=first.device) - first[candidates.image]
    searched = 2 * max_detections
    while True:
        best = candidates[rank < searched]
        kept = best[_nms(best, nms_iou, across_classes)]
        counts = kept.image.bincount(minlength=images)
        if ((counts >= max_detections) | (totals <= searched)).all():  # host sync
            break
        searched *= 4
    return [
        Detections(*(part[:max_detections] for part in parts))
        for parts in _split_by_image(kept, counts)
    ]


def _nms(sorted_candidates: Candidates, nms_iou: float, across_classes: bool) -> Tensor:
    """Rows [k] that are kept, in order; the candidates are sorted by image, then best first.

    Boxes of different images and classes are shifted apart and compared in one call; in float64, in
    which the shift costs no precision. A CPU compares every pair, so there each image has its own call.
    """
    c = sorted_candidates
    group = c.image if c.boxes_xyxy.is_cuda else torch.zeros_like(c.image)
    if not across_classes:
        group = group * (int(c.labels.max()) + 1 if len(c.labels) else 1) + c.labels
    limit = LARGEST_COORDINATE
    boxes = c.boxes_xyxy.double().clamp(-limit, limit)
    boxes += (group * (2 * limit + 1))[:, None]
    if c.boxes_xyxy.is_cuda:
        return nms(boxes, c.scores.double(), nms_iou).sort().values
    scores, start, kept = c.scores.double(), 0, [torch.zeros(0, dtype=torch.int64)]
    for count in c.image.bincount().tolist():
        rows = slice(start, start + count)
        kept.append(nms(boxes[rows], scores[rows], nms_iou) + start)
        start += count
    return torch.cat(kept)


def _split_by_image(c: Candidates, counts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    sizes = counts.tolist()
    return zip(c.boxes_xyxy.split(sizes), c.scores.split(sizes), c.labels.split(sizes), strict=True)


def suppress_darknet(
    candidates: Candidates,
    images: int,
    *,
    threshold: float = 0.6,
    beta: float = 0.6,
    across_classes: bool = False,
) -> list[Detections]:
    """NMS as `darknet detector valid` does it; returns the detections of each image, best first.

    It compares IoU - (d^2 / c^2)^beta with the threshold (d: distance of the centres, c: diagonal of
    the box around both), so neighbouring boxes survive longer. The number of detections has no limit.

    Args:
        candidates: of the batch.
        images: number of images in the batch.
        threshold, beta: of the comparison.
        across_classes: a box also suppresses boxes of other classes.
    """
    c = candidates[candidates.scores.argsort(descending=True, stable=True)]
    group = c.image
    if not across_classes:
        group = group * (int(c.labels.max()) + 1 if len(c.labels) else 1) + c.labels
    kept = torch.zeros(len(group), dtype=torch.bool, device=group.device)
    for number in group.unique():
        mine = (group == number).nonzero(as_tuple=True)[0]
        kept[mine[_greedy_nms(c.boxes_xyxy[mine], threshold, beta)]] = True
    c = c[kept]
    c = c[c.image.argsort(stable=True)]
    counts = c.image.bincount(minlength=images)
    return [Detections(*parts) for parts in _split_by_image(c, counts)]


def _greedy_nms(boxes: Tensor, threshold: float, beta: float) -> Tensor:
    """Mask [m] of the boxes that are kept; `boxes` [m, 4] are sorted best first."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    other_low, other_high = boxes[None, :, :2], boxes[None, :, 2:]
    distance = ((low + high - other_low - other_high) / 2).square().sum(-1)
    around = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).square().sum(-1)
    closeness = box_iou(boxes, boxes) - (distance / around.clamp(min=1e-12)) ** beta
    suppresses = (closeness > threshold).cpu()
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for number in range(len(boxes)):
        if alive[number]:
            alive[number + 1 :] &= ~suppresses[number, number + 1 :]
    return alive.to(boxes.device)
