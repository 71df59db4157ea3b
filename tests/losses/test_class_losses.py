"""The class losses against the formulas of their papers, in plain Python."""

import math

import pytest
import torch

from detector.losses import CLASS_LOSSES, LossTerms

from .test_yolo_loss import TWO, make_loss, make_raw


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def focal(x, positive, quality):
    p = sigmoid(x)
    if positive:
        return -0.25 * (1 - p) ** 2 * math.log(p)
    return -0.75 * p**2 * math.log(1 - p)


def varifocal(x, positive, quality):
    p = sigmoid(x)
    if positive:
        return -quality * (quality * math.log(p) + (1 - quality) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def bce(x, positive, quality):
    return -math.log(sigmoid(x)) if positive else -math.log(1 - sigmoid(x))


@pytest.mark.parametrize(
    ("name", "formula"), [("bce", bce), ("focal", focal), ("varifocal", varifocal)]
)
def test_equals_its_formula(name, formula):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, 4, (50,), generator=generator)
    quality = torch.rand(50, generator=generator, dtype=torch.float64)
    positive = labels[:, None] == torch.arange(4)
    values = CLASS_LOSSES[name](logits, positive.double(), positive, quality)
    for row in range(50):
        for column in range(4):
            expected = formula(
                float(logits[row, column]), bool(positive[row, column]), float(quality[row])
            )
            assert float(values[row, column]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", list(CLASS_LOSSES))
@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_gradients_are_finite_for_extreme_logits(name, logit):
    logits = torch.full((2, 3), logit, requires_grad=True)
    positive = torch.tensor([[True, False, False], [False, False, True]])
    CLASS_LOSSES[name](logits, positive.float(), positive, torch.ones(2)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_weights_scale_the_class_loss_of_their_matches():
    raw, ones = make_raw(), float(make_loss()(make_raw(), TWO)["cls"])
    for number in set(TWO.labels.tolist()):
        weights = [1.0] * 4
        weights[number] = 3.0
        weighted = make_loss(terms=LossTerms(class_weights=weights))(raw, TWO)
        only = make_loss(
            terms=LossTerms(class_weights=[1.0 if n == number else 1e-9 for n in range(4)])
        )(raw, TWO)
        assert float(weighted["cls"]) == pytest.approx(ones + 2 * float(only["cls"]), rel=1e-4)


def test_objectness_targets():
    raw = make_raw()
    values = {
        target: float(make_loss(terms=LossTerms(objectness=target))(raw, TWO)["obj"])
        for target in ("box_loss", "iou", "one")
    }
    assert len(set(values.values())) == 3
