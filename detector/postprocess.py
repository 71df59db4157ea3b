"""Boxes and scores -> detections: threshold, per-class non-maximum suppression, the best few."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou

from detector.structures import Detections

# boxes_cxcywh [B, N, 4], objectness [B, N], classes [B, N, C] -> detections of each image
Postprocess = Callable[[Tensor, Tensor, Tensor], list[Detections]]


def postprocess(
    boxes_cxcywh: Tensor,
    objectness: Tensor,
    classes: Tensor,
    *,
    conf: float,
    nms_iou: float,
    max_detections: int,
) -> list[Detections]:
    """Detections of each image of a batch, best first.

    Multi-label: every (box, class) whose score, objectness * class probability, exceeds `conf` is a
    candidate of its own. Suppression is greedy, within a class and an image.

    Args:
        boxes_cxcywh: float32 [B, N, 4], pixels.
        objectness: float32 [B, N], in [0, 1].
        classes: float32 [B, N, C], in [0, 1].
        conf: lowest score, exclusive.
        nms_iou: a box is dropped if its IoU with a better one of its class exceeds this.
        max_detections: at most so many an image.
    """
    image, corners, score, label = _candidates(boxes_cxcywh, objectness, classes, conf)
    kept = batched_nms(corners, score, image * classes.shape[2] + label, nms_iou)  # best first
    image, corners, score, label = image[kept], corners[kept], score[kept], label[kept]

    found = []
    for number in range(len(objectness)):
        mine = (image == number).nonzero(as_tuple=True)[0][:max_detections]
        found.append(Detections(corners[mine], score[mine], label[mine]))
    return found


def _candidates(
    boxes_cxcywh: Tensor, objectness: Tensor, classes: Tensor, conf: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image [m], corners [m, 4], score [m] and label [m] of every (box, class) above `conf`."""
    image, box = (objectness > conf).nonzero(as_tuple=True)
    scores = objectness[image, box, None] * classes[image, box]  # [k, C]
    pair, label = (scores > conf).nonzero(as_tuple=True)
    image, box, score = image[pair], box[pair], scores[pair, label]
    return image, box_convert(boxes_cxcywh[image, box], "cxcywh", "xyxy"), score, label


def postprocess_darknet(
    boxes_cxcywh: Tensor,
    objectness: Tensor,
    classes: Tensor,
    *,
    conf: float = 0.001,
    threshold: float = 0.6,
    beta: float = 0.6,
) -> list[Detections]:
    """Detections of each image as `darknet detector valid` finds them, best first.

    Its greedy suppression compares IoU - (d^2 / c^2)^beta with the threshold (d: distance of the centres,
    c: diagonal of the box around both), so boxes side by side survive longer. All that is left counts.

    Args:
        boxes_cxcywh, objectness, classes: as for `postprocess`.
        conf: lowest score, exclusive.
        threshold, beta: of the suppression.
    """
    image, corners, score, label = _candidates(boxes_cxcywh, objectness, classes, conf)
    order = score.argsort(descending=True, stable=True)
    image, corners, score, label = image[order], corners[order], score[order], label[order]
    group = image * classes.shape[2] + label
    kept = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    for number in group.unique():
        mine = (group == number).nonzero(as_tuple=True)[0]
        kept[mine[_greedy(corners[mine], threshold, beta)]] = True
    image, corners, score, label = image[kept], corners[kept], score[kept], label[kept]
    return [
        Detections(corners[image == i], score[image == i], label[image == i])
        for i in range(len(objectness))
    ]


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
