"""Top-1, top-5 and the confusion matrix, on logits that are written down."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from detector.engine import Hardware
from detector.evaluation import TopKEvaluator
from tests.losses.test_yolo_loss import make_batch

CPU = Hardware.choose("cpu", "fp32", channels_last=False)
WHOLE = (0.0, 0.0, 64.0, 64.0)


class Constant(nn.Module):
    """Returns rows of a table, batch by batch."""

    def __init__(self, logits):
        super().__init__()
        self.rows = iter(logits)

    def forward(self, images):
        return torch.stack([next(self.rows) for _ in images])


def test_counts_of_two_batches():
    logits = torch.tensor(
        [[9, 5, 4, 3, 2, 1, 0], [9, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 9.0]]
    )  # top 5 of the first two: 0..4
    labels = [0, 5, 4]
    batches = [
        make_batch([WHOLE] * 2, labels[:2], [0, 1], num_images=2),
        make_batch([], [], [], num_images=0),
        make_batch([WHOLE], labels[2:], [0], num_images=1),
    ]
    evaluator = TopKEvaluator(batches, 7, hardware=CPU)
    metrics = evaluator(Constant(logits))
    expected = float(functional.cross_entropy(logits, torch.tensor(labels)))
    assert metrics == pytest.approx({"top1": 1 / 3, "top5": 2 / 3, "loss": expected})
    assert evaluator.confusion.nonzero().tolist() == [[0, 0], [4, 6], [5, 0]]
    _, found, values = evaluator.get_images()  # the ids of made batches are all 0
    assert sorted(found.tolist()) == [0, 4, 5]
    assert {name: column.mean() for name, column in values.items()} == pytest.approx(metrics)


def test_without_images_there_are_no_metrics():
    assert TopKEvaluator([], 3, hardware=CPU)(nn.Identity())["top1"] == -1
