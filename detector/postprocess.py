"""Boxes and scores -> detections: threshold, per-class non-maximum suppression, the best few."""

from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from detector.structures import Detections


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
    image, box = (objectness > conf).nonzero(as_tuple=True)
    scores = objectness[image, box, None] * classes[image, box]  # [m, C]
    pair, label = (scores > conf).nonzero(as_tuple=True)
    image, box, score = image[pair], box[pair], scores[pair, label]

    corners = box_convert(boxes_cxcywh[image, box], "cxcywh", "xyxy")
    kept = batched_nms(corners, score, image * classes.shape[2] + label, nms_iou)  # best first
    image, corners, score, label = image[kept], corners[kept], score[kept], label[kept]

    found = []
    for number in range(len(objectness)):
        mine = (image == number).nonzero(as_tuple=True)[0][:max_detections]
        found.append(Detections(corners[mine], score[mine], label[mine]))
    return found
