"""Analysis of a classifier on made-up predictions, by hand."""

import json

import numpy as np
import pytest

from detector.evaluation import Accuracy, analyse_classes

NAMES = ("cat", "dog", "owl")
# id, label, right, in the first five, cross-entropy, predicted, score
IMAGES = np.array(
    [
        (1, 0, 1, 1, 0.1, 0, 0.95),
        (2, 0, 0, 1, 2.0, 1, 0.65),
        (3, 1, 1, 1, 0.3, 1, 0.55),
        (4, 1, 0, 0, 3.0, 0, 0.91),
    ]
)


def test_the_numbers_of_an_evaluation():
    analysis = analyse_classes(IMAGES, NAMES)
    assert (analysis.top1.value, analysis.top5.value) == (0.5, 0.75)
    assert analysis.loss == pytest.approx(1.35)
    assert analysis.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert [(row.images, row.recall, row.precision) for row in analysis.rows] == [
        (2, 0.5, 0.5),
        (2, 0.5, 0.5),
        (0, None, None),
    ]
    assert [(each.image_id, each.label, each.predicted) for each in analysis.errors] == [
        (4, 1, 0),
        (2, 0, 1),
    ]
    json.dumps(analysis.as_json())


def test_calibration():
    """Bins 0.5: one right of one; 0.6: none of one; 0.9: one of two, mean score 0.93."""
    analysis = analyse_classes(IMAGES, NAMES)
    shown = [(round(b.score, 2), b.precision, b.count) for b in analysis.bins]
    assert shown == [(0.55, 1.0, 1), (0.65, 0.0, 1), (0.93, 0.5, 2)]
    assert analysis.calibration_error == pytest.approx((0.45 + 0.65 + 2 * 0.43) / 4)


def test_the_interval_is_wilsons():
    """Wilson's formula, z = 1.95996; all right has a width, too."""
    z, n = 1.959964, 364
    for right in (314, 364):
        p = right / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        each = Accuracy.of(right, n)
        assert (each.low, each.high) == pytest.approx((centre - half, min(centre + half, 1.0)))
    assert each.low < 0.995
