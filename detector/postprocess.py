"""Candidates -> detections: per-class non-maximum suppression, the best few; and the threshold before."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou, nms

from detector.structures import Candidates, Detections

REACH = 1e5  # px; what sticks out farther is cut for the comparison of boxes. No image is as large

Suppress = Callable[[Candidates, int], list[Detections]]  # (candidates, images of the batch)


@dataclass(frozen=True, slots=True)
class Postprocess:
    """From candidates to detections.

    Attributes:
        conf: lowest score of a candidate, exclusive.
        suppress: chooses among the candidates of a batch.
    """

    conf: float
    suppress: Suppress


def select(
    candidates: Candidates, images: int, *, nms_iou: float, max_detections: int
) -> list[Detections]:
    """Detections of each image of a batch, best first: greedy suppression within a class and image.

    Whether a box is kept depends on better ones only, so the best `max_detections` of an image are
    looked for among its best few hundred candidates first, and among more only where those do not do.

    Args:
        candidates: of the batch.
        images: how many images it has.
        nms_iou: a box is dropped if its IoU with a better one of its class exceeds this.
        max_detections: at most so many an image.
    """
    order = candidates.scores.argsort(descending=True, stable=True)
    candidates = candidates[order[candidates.image[order].argsort(stable=True)]]
    totals = candidates.image.bincount(minlength=images)
    first = totals.cumsum(0) - totals
    place = torch.arange(len(candidates.image), device=first.device) - first[candidates.image]
    looked_at = 2 * max_detections
    while True:
        among = candidates[place < looked_at]
        kept = among[_suppress(among, nms_iou)]
        counts = kept.image.bincount(minlength=images)
        if ((counts >= max_detections) | (totals <= looked_at)).all():  # host sync
            break
        looked_at *= 4
    return [
        Detections(*(part[:max_detections] for part in parts)) for parts in _by_image(kept, counts)
    ]


def _suppress(sorted_candidates: Candidates, nms_iou: float) -> Tensor:
    """Rows [k] that are kept, in their order; the candidates are sorted by image, best first.

    Boxes of different images and classes are moved apart and compared in one go; in float64, in which
    that costs no digits. A CPU compares all pairs one by one, so there each image goes alone.
    """
    c = sorted_candidates
    group = c.image if c.boxes_xyxy.is_cuda else torch.zeros_like(c.image)
    group = group * (int(c.labels.max()) + 1 if len(c.labels) else 1) + c.labels
    boxes = c.boxes_xyxy.double().clamp(-REACH, REACH) + (group * (2 * REACH + 1))[:, None]
    if c.boxes_xyxy.is_cuda:
        return nms(boxes, c.scores.double(), nms_iou).sort().values
    scores, start, kept = c.scores.double(), 0, [torch.zeros(0, dtype=torch.int64)]
    for count in c.image.bincount().tolist():
        rows = slice(start, start + count)
        kept.append(nms(boxes[rows], scores[rows], nms_iou) + start)
        start += count
    return torch.cat(kept)


def _by_image(c: Candidates, counts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    sizes = counts.tolist()
    return zip(c.boxes_xyxy.split(sizes), c.scores.split(sizes), c.labels.split(sizes), strict=True)


def select_darknet(
    candidates: Candidates, images: int, *, threshold: float = 0.6, beta: float = 0.6
) -> list[Detections]:
    """Detections of each image as `darknet detector valid` finds them, best first.

    Its greedy suppression compares IoU - (d^2 / c^2)^beta with the threshold (d: distance of the centres,
    c: diagonal of the box around both), so boxes side by side survive longer. All that is left counts.

    Args:
        candidates: of the batch.
        images: how many images it has.
        threshold, beta: of the suppression.
    """
    c = candidates[candidates.scores.argsort(descending=True, stable=True)]
    group = c.image * (int(c.labels.max()) + 1 if len(c.labels) else 1) + c.labels
    kept = torch.zeros(len(group), dtype=torch.bool, device=group.device)
    for number in group.unique():
        mine = (group == number).nonzero(as_tuple=True)[0]
        kept[mine[_greedy(c.boxes_xyxy[mine], threshold, beta)]] = True
    c = c[kept]
    c = c[c.image.argsort(stable=True)]
    counts = c.image.bincount(minlength=images)
    return [Detections(*parts) for parts in _by_image(c, counts)]


def postprocess(
    boxes_cxcywh: Tensor,
    objectness: Tensor,
    classes: Tensor,
    *,
    conf: float,
    nms_iou: float,
    max_detections: int,
) -> list[Detections]:
    """Detections of each image of a batch from all its decoded boxes, best first.

    Multi-label: every (box, class) whose score, objectness * class probability, exceeds `conf` is a
    candidate of its own. Suppression is greedy, within a class and an image.

    Args:
        boxes_cxcywh: float32 [B, N, 4], pixels.
        objectness: float32 [B, N], in [0, 1].
        classes: float32 [B, N, C], in [0, 1].
        conf: lowest score, exclusive.
        nms_iou, max_detections: as for `select`.
    """
    found = _candidates(boxes_cxcywh, objectness, classes, conf)
    return select(found, len(objectness), nms_iou=nms_iou, max_detections=max_detections)


def postprocess_darknet(
    boxes_cxcywh: Tensor, objectness: Tensor, classes: Tensor, *, conf: float = 0.001
) -> list[Detections]:
    """Detections by `select_darknet` from all decoded boxes; arguments as for `postprocess`."""
    return select_darknet(_candidates(boxes_cxcywh, objectness, classes, conf), len(objectness))


def _candidates(
    boxes_cxcywh: Tensor, objectness: Tensor, classes: Tensor, conf: float
) -> Candidates:
    image, box = (objectness > conf).nonzero(as_tuple=True)
    scores = objectness[image, box, None] * classes[image, box]  # [k, C]
    pair, label = (scores > conf).nonzero(as_tuple=True)
    image, box, score = image[pair], box[pair], scores[pair, label]
    corners = box_convert(boxes_cxcywh[image, box], "cxcywh", "xyxy")
    return Candidates(image, corners, score, label)


def _greedy(boxes: Tensor, threshold: float, beta: float) -> Tensor:
    """Mask [m] of the boxes, best first, that no better kept one suppresses."""
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
