import math

import pytest
import torch
from torchvision.ops import (
    box_convert,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from detector.losses.iou_losses import BOX_LOSSES

TORCHVISION = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
NAMES = sorted(BOX_LOSSES)


def random_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.rand(count, 2, generator=generator, dtype=dtype)
    sizes = 0.2 + 3 * torch.rand(count, 2, generator=generator, dtype=dtype)
    return torch.cat([centres, sizes], 1)


def reference(name, predicted, target):
    """The papers' equations for one pair of boxes, in plain Python."""
    (x, y, w, h), (tx, ty, tw, th) = predicted, target
    wide = min(x + w / 2, tx + tw / 2) - max(x - w / 2, tx - tw / 2)
    tall = min(y + h / 2, ty + th / 2) - max(y - h / 2, ty - th / 2)
    inter = max(wide, 0) * max(tall, 0)
    iou = inter / (w * h + tw * th - inter)
    cw = max(x + w / 2, tx + tw / 2) - min(x - w / 2, tx - tw / 2)
    ch = max(y + h / 2, ty + th / 2) - min(y - h / 2, ty - th / 2)
    rho2 = (x - tx) ** 2 + (y - ty) ** 2
    if name == "giou":
        return 1 - iou + (cw * ch - (w * h + tw * th - inter)) / (cw * ch)
    diou = 1 - iou + rho2 / (cw**2 + ch**2)
    if name == "diou":
        return diou
    if name == "ciou":
        v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(w / h)) ** 2
        return diou + v / (1 - iou + v) * v
    if name == "eiou":
        return diou + (w - tw) ** 2 / cw**2 + (h - th) ** 2 / ch**2
    sigma = math.sqrt(rho2)
    angle = 1 - 2 * math.sin(math.asin(abs(y - ty) / sigma) - math.pi / 4) ** 2
    gamma = 2 - angle
    distance = sum(1 - math.exp(-gamma * (d / c) ** 2) for d, c in ((x - tx, cw), (y - ty, ch)))
    omegas = (abs(w - tw) / max(w, tw), abs(h - th) / max(h, th))
    shape = sum((1 - math.exp(-omega)) ** 4 for omega in omegas)
    return 1 - iou + (distance + shape) / 2


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_papers_equations(name):
    predicted, target = random_boxes(200, 0), random_boxes(200, 1)
    expected = [
        reference(name, *pair) for pair in zip(predicted.tolist(), target.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        BOX_LOSSES[name](predicted, target), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_equals_torchvision(name):
    predicted, target = random_boxes(200, 2), random_boxes(200, 3)
    corners = [box_convert(each, "cxcywh", "xyxy") for each in (predicted, target)]
    torch.testing.assert_close(BOX_LOSSES[name](predicted, target), TORCHVISION[name](*corners))


@pytest.mark.parametrize("name", NAMES)
def test_zero_for_equal_boxes_and_unchanged_by_scale_and_shift(name):
    predicted, target = random_boxes(50, 4), random_boxes(50, 5)
    loss = BOX_LOSSES[name]
    torch.testing.assert_close(loss(target, target), torch.zeros(50, dtype=torch.float64))
    moved = torch.tensor([3.0, -2.0, 0, 0], dtype=torch.float64)
    for change in (lambda boxes: 7 * boxes, lambda boxes: boxes + moved):
        torch.testing.assert_close(loss(change(predicted), change(target)), loss(predicted, target))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_for_degenerate_boxes(name):
    target = torch.tensor([[35.5, 12.5, 3.0, 2.0]]).expand(6, 4)
    predicted = torch.tensor(
        [
            [35.5, 12.5, 0.0, 0.0],  # no size, at the centre
            [35.5, 12.5, 1e-20, 1e-20],  # no size in float32 arithmetic with corners
            [36.0, 12.0, 2.0, 0.0],  # no height: width / height is infinite
            [0.0, 0.0, 1e-7, 50.0],
            [35.5, 12.5, 3.0, 2.0],  # equal
            [90.0, 90.0, 1e4, 1e4],
        ],
        requires_grad=True,
    )
    loss = BOX_LOSSES[name](predicted, target)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_descent_ends_at_the_ground_truth(name):
    target = random_boxes(8, 6)
    predicted = random_boxes(8, 7).requires_grad_()
    optimizer = torch.optim.Adam([predicted], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        loss = BOX_LOSSES[name](predicted, target).sum()
        loss.backward()
        optimizer.step()
    assert loss < 0.15
