"""Anchors and class weights that follow from the boxes of the training split."""

from pathlib import Path

import numpy as np
import pytest

from detector import build
from detector.anchors import flatten_anchors
from detector.build.resolve import resolve_class_weights
from detector.config import config_from_dict
from detector.data import Index

SIZE = 320


def make_index(sizes, labels=None):
    """One image of SIZE px for each box size (width, height)."""
    n = len(sizes)
    sizes = np.asarray(sizes, np.float32).reshape(n, 2)
    return Index(
        folder=Path(),
        files=np.array([f"{i}.jpg" for i in range(n)]),
        image_ids=np.arange(n),
        sizes=np.full((n, 2), SIZE),
        starts=np.arange(n + 1),
        boxes_xyxy=np.concatenate([np.zeros((n, 2), np.float32), sizes], 1),
        labels=np.zeros(n, np.int64) if labels is None else np.asarray(labels),
        crowd=np.zeros(n, bool),
        names=("a", "b", "c"),
        category_ids=np.arange(3),
        annotations=Path("none.json"),
        findings=(),
        clipped=np.zeros(n, bool),
    )


def config(*words):
    return config_from_dict({}, "test", [f"data.size={SIZE}", *words])


def near(anchors, number, spread, seed=0):
    """Box sizes around anchors, log-normal."""
    rng = np.random.default_rng(seed)
    chosen = flatten_anchors(anchors)[rng.integers(0, 9, number)]
    return np.clip(chosen * np.exp(rng.normal(0, spread, (number, 2))), 3, SIZE)


PUBLISHED = build.build_anchors(config().model, 3)


def test_published_anchors_stay_while_they_fit():
    resolved, lines = build.resolve_anchors(config(), make_index(near(PUBLISHED, 2000, 0.5)))
    assert resolved.model.anchors == PUBLISHED
    assert lines[0].startswith("anchors: published (mean best IoU 0.")


def test_anchors_are_clustered_where_the_published_ones_fit_badly():
    sizes = np.random.default_rng(1).uniform(20, 24, (200, 2))
    resolved, lines = build.resolve_anchors(config(), make_index(sizes))
    assert resolved.model.anchors != PUBLISHED
    assert lines[0].startswith("anchors: clustered (mean best IoU 0.")
    again, lines = build.resolve_anchors(resolved, make_index(sizes))
    assert (again, lines) == (resolved, []), "a resumed run keeps its numbers"


@pytest.mark.parametrize("number", [0, 1, 89])
def test_few_boxes_are_not_clustered(number):
    resolved, lines = build.resolve_anchors(config(), make_index(np.full((number, 2), 9.0)))
    assert resolved.model.anchors == PUBLISHED
    assert lines == [f"anchors: published; {number} boxes are too few to cluster"]


def test_boxes_of_one_size_are_not_clustered():
    resolved, lines = build.resolve_anchors(config(), make_index(np.full((500, 2), 9.0)))
    assert resolved.model.anchors == PUBLISHED
    assert "too few distinct sizes" in lines[0]


@pytest.mark.parametrize("words", [["model.anchors=published"], ["recipe=published"]])
def test_published_anchors_on_request(words):
    wanted = config(*words)
    resolved, lines = build.resolve_anchors(wanted, make_index(np.full((500, 2), 9.0)))
    assert build.build_anchors(resolved.model, 3) == PUBLISHED
    assert not lines


def test_balanced_class_weights():
    labels = [0] * 6 + [1] * 2
    resolved, lines = resolve_class_weights(
        config("loss.class_weights=balanced"), make_index(np.full((8, 2), 9.0), labels)
    )
    weights = resolved.loss.class_weights
    assert weights == pytest.approx([8 / 2 / 6, 8 / 2 / 2, 8 / 2 / 2], rel=1e-3)
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1, rel=1e-3)
    assert lines == ["class weights: a 0.667, b 2"]


def test_class_weights_without_any_object():
    resolved, _ = resolve_class_weights(config("loss.class_weights=balanced"), make_index([]))
    assert resolved.loss.class_weights is None
