import itertools

import numpy as np
import pytest
import torch

from detector.anchors import (
    cluster_anchors,
    find_unmatched,
    flatten_anchors,
    measure_fit,
    size_iou,
    size_ratio,
    split_by_level,
)
from detector.losses.assign import assign
from detector.models.variants import TINY_ANCHORS, YOLOV4_ANCHORS


@pytest.fixture
def sizes(rng) -> np.ndarray:
    """Boxes of nine clearly distinct sizes, each a little scattered."""
    middle = np.array(list(itertools.product((10, 40, 160), (12, 50, 200))), float)
    return (middle[:, None] * np.exp(rng.normal(0, 0.03, (9, 40, 2)))).reshape(-1, 2)


def test_iou_of_sizes_is_iou_of_boxes_at_one_corner(rng):
    from torchvision.ops import box_iou

    a, b = rng.uniform(1, 100, (30, 2)), rng.uniform(1, 100, (5, 2))
    boxes = [torch.from_numpy(np.concatenate([np.zeros_like(x), x], 1)) for x in (a, b)]
    np.testing.assert_allclose(size_iou(a, b), box_iou(*boxes).numpy())


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_unmatched_boxes_are_those_that_training_gives_to_no_anchor(rng, ratio):
    sizes = np.exp(rng.uniform(0, 6.4, (300, 2)))
    strides, anchors = (8, 16, 32), flatten_anchors(YOLOV4_ANCHORS)
    shapes = [(640 // s, 640 // s) for s in strides]
    boxes = torch.from_numpy(np.concatenate([320 - sizes / 2, 320 + sizes / 2], 1)).float()
    levels = torch.tensor(YOLOV4_ANCHORS)
    image = torch.zeros(300, dtype=torch.int64)
    matches = assign(boxes, image, levels, strides, shapes, ratio, (0.5,) * 3)
    given = set(torch.cat([m.box for m in matches]).tolist())
    # a box at exactly the limit may round to either side
    clear = np.abs(size_ratio(sizes, anchors) - ratio).min(1) > 1e-3
    lost = set((find_unmatched(sizes, anchors, ratio) & clear).nonzero()[0].tolist())
    assert lost
    assert lost == {n for n in range(300) if clear[n]} - given


def test_distinct_clusters_are_recovered(sizes):
    clustered = flatten_anchors(cluster_anchors(sizes, YOLOV4_ANCHORS, ratio=4.0))
    expected = np.array(list(itertools.product((10, 40, 160), (12, 50, 200))), float)
    nearest = np.abs(np.log(clustered[:, None] / expected)).max(-1).argmin(1)
    assert sorted(nearest) == list(range(9))
    assert np.abs(np.log(clustered / expected[nearest])).max() < 0.05


@pytest.mark.parametrize("start", [YOLOV4_ANCHORS, TINY_ANCHORS])
def test_no_worse_than_the_start_sorted_and_the_same_for_the_same_seed(rng, start):
    sizes = np.exp(rng.normal(3.5, 1, (500, 2)))
    clustered = cluster_anchors(sizes, start, ratio=4.0, seed=3)
    assert clustered == cluster_anchors(sizes, start, ratio=4.0, seed=3)
    assert [len(level) for level in clustered] == [len(level) for level in start]
    areas = flatten_anchors(clustered).prod(1)
    assert (np.diff(areas) >= -1e-9).all()
    before, after = (measure_fit(sizes, flatten_anchors(a), 4.0) for a in (start, clustered))
    assert after.mean_iou + after.matched > before.mean_iou + before.matched + 0.01


def test_scaling_boxes_scales_anchors_fit(rng):
    sizes = rng.uniform(5, 100, (50, 2))
    anchors = flatten_anchors(YOLOV4_ANCHORS)
    one, two = measure_fit(sizes, anchors, 4.0), measure_fit(sizes * 7, anchors * 7, 4.0)
    assert one.mean_iou == pytest.approx(two.mean_iou)
    assert one.matched == two.matched


def test_the_boxes_themselves_fit_perfectly():
    anchors = flatten_anchors(YOLOV4_ANCHORS)
    fit = measure_fit(anchors, anchors, 1.01)
    assert (fit.mean_iou, fit.matched) == (pytest.approx(1), 1)


def test_accidental_tiny_boxes_do_not_move_anchors(sizes):
    with_slips = np.concatenate([sizes, np.full((200, 2), 0.5)])
    assert flatten_anchors(cluster_anchors(with_slips, YOLOV4_ANCHORS, ratio=4.0)).min() > 5


def test_too_few_sizes():
    sizes = np.repeat([[10.0, 10], [20, 20]], 50, axis=0)
    with pytest.raises(ValueError, match="at least 9 distinct sizes, 2 px or more; there are 2"):
        cluster_anchors(sizes, YOLOV4_ANCHORS, ratio=4.0)


def test_levels_are_even_and_rounded():
    anchors = np.array([[30.04, 10], [5, 5.06], [100, 100], [50, 50]])
    assert split_by_level(anchors, 2) == (
        ((5.0, 5.1), (30.0, 10.0)),
        ((50.0, 50.0), (100.0, 100.0)),
    )
