"""The loss of a classifier against torch's, and class shares by area."""

import pytest
import torch
from torch.nn import functional

from detector.losses import ClassificationLoss
from detector.losses.classification import margin, softmax_cross_entropy

from .test_yolo_loss import make_batch

WHOLE = (0.0, 0.0, 64.0, 64.0)


def mean_over(count: torch.Tensor) -> torch.Tensor:
    return count


def test_shares_are_areas():
    left, right = (0.0, 0.0, 48.0, 64.0), (48.0, 0.0, 64.0, 64.0)
    batch = make_batch([left, right, WHOLE], [2, 0, 1], [0, 0, 2], num_images=3)
    expected = torch.tensor([[0.25, 0, 0.75], [0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(batch.class_shares(3), expected)


def test_equals_cross_entropy():
    logits = torch.randn(4, 5)
    labels = [3, 0, 4, 4]
    batch = make_batch([WHOLE] * 4, labels, [0, 1, 2, 3], num_images=4)
    loss = ClassificationLoss(5)(logits, batch, mean_over)["cls"]
    torch.testing.assert_close(loss, functional.cross_entropy(logits, torch.tensor(labels)))


def test_smoothing_is_darknets():
    logits = torch.randn(1, 5)
    batch = make_batch([WHOLE], [3], [0], num_images=1)
    loss = ClassificationLoss(5, label_smoothing=0.1)(logits, batch, mean_over)["cls"]
    target = torch.tensor([[0.025, 0.025, 0.025, 0.9, 0.025]])
    torch.testing.assert_close(loss, functional.cross_entropy(logits, target))


def test_margin_by_hand():
    """Lengths 0.95, 0.5, 0.05 with class 1: 0.4^2, and half of 0.85^2 and 0."""
    logits = torch.tensor([[0.95, 0.5, 0.05]]).logit()
    batch = make_batch([WHOLE], [1], [0], num_images=1)
    loss = ClassificationLoss(3, kind=margin)(logits, batch, mean_over)["cls"]
    torch.testing.assert_close(loss, torch.tensor(0.4**2 + 0.5 * 0.85**2))


@pytest.mark.parametrize("kind", [softmax_cross_entropy, margin])
def test_a_loss_of_shares_is_the_mean_of_those_of_the_classes(kind):
    logits = torch.randn(1, 3)
    shares = torch.tensor([[0.2, 0.3, 0.5]])
    parts = [share * kind(logits, torch.eye(3)[[i]]) for i, share in enumerate(shares[0])]
    torch.testing.assert_close(kind(logits, shares), sum(parts))


@pytest.mark.parametrize("kind", [softmax_cross_entropy, margin])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunks_add_up_and_unlabelled_images_do_not_count(smoothing, kind):
    logits = torch.randn(4, 3)
    batch = make_batch([WHOLE] * 3, [0, 1, 2], [0, 1, 3], num_images=4)
    criterion = ClassificationLoss(3, label_smoothing=smoothing, kind=kind)
    whole = criterion(logits, batch, mean_over)["cls"]
    parts = [
        criterion(rows, part, lambda _: torch.tensor(3.0))["cls"]
        for rows, part in zip(logits.chunk(2), batch.chunk(2), strict=True)
    ]
    torch.testing.assert_close(sum(parts), whole)
    kept = criterion(
        logits[[0, 1, 3]],
        make_batch([WHOLE] * 3, [0, 1, 2], [0, 1, 2], num_images=3),
        mean_over,
    )
    torch.testing.assert_close(kept["cls"], whole)
