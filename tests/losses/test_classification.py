"""The loss of a classifier against torch's, and class shares by area."""

import pytest
import torch
from torch.nn import functional

from detector.losses import ClassificationLoss

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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunks_add_up_and_unlabelled_images_do_not_count(smoothing):
    logits = torch.randn(4, 3)
    batch = make_batch([WHOLE] * 3, [0, 1, 2], [0, 1, 3], num_images=4)
    criterion = ClassificationLoss(3, label_smoothing=smoothing)
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
