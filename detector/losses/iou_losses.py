"""Losses of a predicted box against its ground truth: 1 - IoU and a penalty; `BOX_LOSSES` by name.

All take boxes_cxcywh [m, 4], predicted and ground truth, in any one unit, and return [m]. Gradients are
finite for every finite box, one of no size included: a width or height below `EPS` counts as `EPS`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from detector.registry import Registry

EPS = 1e-6  # cells; the least width and height, so that no ratio or gradient of one overflows in float32

BoxLoss = Callable[[Tensor, Tensor], Tensor]
BOX_LOSSES: Registry[BoxLoss] = Registry("box loss")


class _Pair:
    """IoU, union and hull of m predicted boxes and their ground truths."""

    def __init__(self, predicted: Tensor, target: Tensor) -> None:
        self.centre_p, self.centre_t = predicted[:, :2], target[:, :2]
        self.size_p = predicted[:, 2:].clamp(min=EPS)  # [m, 2], width and height
        self.size_t = target[:, 2:].clamp(min=EPS)
        low_p, high_p = self.centre_p - self.size_p / 2, self.centre_p + self.size_p / 2
        low_t, high_t = self.centre_t - self.size_t / 2, self.centre_t + self.size_t / 2
        overlap = (torch.minimum(high_p, high_t) - torch.maximum(low_p, low_t)).clamp(min=0)
        intersection = overlap.prod(-1)  # [m]
        self.union = self.size_p.prod(-1) + self.size_t.prod(-1) - intersection
        self.iou = intersection / self.union
        # the smallest box around both
        self.hull = torch.maximum(high_p, high_t) - torch.minimum(low_p, low_t)  # [m, 2]

    def centre_distance(self) -> Tensor:
        """Squared distance of the centres over the squared diagonal of the hull, [m] in [0, 1)."""
        apart = (self.centre_p - self.centre_t).square().sum(-1)
        return apart / self.hull.square().sum(-1)


def paired_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU [m] in [0, 1] of each predicted box [m, 4] with its ground truth [m, 4], cxcywh."""
    return _Pair(predicted, target).iou


@BOX_LOSSES.register("giou")
def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + the share of the hull outside both. Rezatofighi et al., "GIoU", 2019, algorithm 1."""
    pair = _Pair(predicted, target)
    hull = pair.hull.prod(-1)
    return 1 - pair.iou + (hull - pair.union) / hull


@BOX_LOSSES.register("diou")
def diou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + distance of the centres. Zheng et al., "Distance-IoU Loss", 2020, equation 7."""
    pair = _Pair(predicted, target)
    return 1 - pair.iou + pair.centre_distance()


@BOX_LOSSES.register("ciou")
def ciou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """DIoU + alpha v, the difference of aspect ratios. Zheng et al., 2020, equations 8 to 11.

    The trade-off alpha has no gradient, as in the paper's code.
    """
    pair = _Pair(predicted, target)
    angle = torch.atan2(pair.size_t[:, 0], pair.size_t[:, 1])
    angle = angle - torch.atan2(pair.size_p[:, 0], pair.size_p[:, 1])
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = v / (1 - pair.iou + v).clamp(min=EPS)  # 0 for equal boxes
    return 1 - pair.iou + pair.centre_distance() + alpha * v


@BOX_LOSSES.register("eiou")
def eiou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """DIoU + differences of the sizes. Zhang et al., "Focal and Efficient IOU Loss", 2021, eq. 7."""
    pair = _Pair(predicted, target)
    sizes = (pair.size_p - pair.size_t).square() / pair.hull.square()
    return 1 - pair.iou + pair.centre_distance() + sizes.sum(-1)


@BOX_LOSSES.register("siou")
def siou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + (distance + shape) / 2, the distance weighted by its angle. Gevorgyan, "SIoU Loss", 2022.

    Equations 1 to 16, theta = 4. Equal centres have an angle of 0.
    """
    pair = _Pair(predicted, target)
    apart = (pair.centre_p - pair.centre_t).abs()  # [m, 2]
    # sin(2a) of the angle a between the line of the centres and an axis: 1 - 2 sin^2(asin(x) - pi/4)
    angle = 2 * apart.prod(-1) / apart.square().sum(-1).clamp(min=EPS**2)  # [m] in [0, 1]
    gamma = (2 - angle)[:, None]
    distance = (1 - torch.exp(-gamma * (apart / pair.hull).square())).sum(-1)
    omega = (pair.size_p - pair.size_t).abs() / torch.maximum(pair.size_p, pair.size_t)
    shape = (1 - torch.exp(-omega)).pow(4).sum(-1)
    return 1 - pair.iou + (distance + shape) / 2
