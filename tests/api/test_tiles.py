"""Tiles cover an image, and an object on a seam is found once."""

import numpy as np
import pytest
import torch

from detector.api.tiles import merge_tiles, plan_tiles
from detector.structures import Detections


@pytest.mark.parametrize(
    ("height", "width"), [(50, 60), (100, 100), (101, 100), (640, 1000), (99, 1234)]
)
def test_tiles_cover_the_image_and_overlap(height, width):
    covered = np.zeros((height, width), int)
    tiles = plan_tiles(height, width, 100)
    for x1, y1, x2, y2 in tiles:
        assert (x2 - x1, y2 - y1) == (min(100, width), min(100, height))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    rng = np.random.default_rng(0)
    for _ in range(200):  # an object of a fifth of a tile is whole in one of them
        x = rng.uniform(0, max(width - 19, 1))
        y = rng.uniform(0, max(height - 19, 1))
        assert any(
            x1 <= x and y1 <= y and min(x + 19, width) <= x2 and min(y + 19, height) <= y2
            for x1, y1, x2, y2 in tiles
        )


def see(objects, tile):
    """What a perfect detector finds in a tile: the visible part of each object, larger parts surer."""
    x1, y1, x2, y2 = tile
    rows = []
    for (a, b, c, d), label in objects:
        part = max(a, x1), max(b, y1), min(c, x2), min(d, y2)
        if part[2] - part[0] > 3 and part[3] - part[1] > 3:
            area = (part[2] - part[0]) * (part[3] - part[1])
            share = area / ((c - a) * (d - b))
            rows.append(
                ([part[0] - x1, part[1] - y1, part[2] - x1, part[3] - y1], 0.5 + share / 4, label)
            )
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([row[1] for row in rows], dtype=torch.float32)
    labels = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    return Detections(boxes, scores, labels)


@pytest.mark.parametrize("seed", range(10))
def test_each_object_is_found_once_and_whole(seed):
    """Small objects anywhere, and one that is larger than a tile."""
    rng = np.random.default_rng(seed)
    corners = rng.permutation(
        np.stack(np.meshgrid(range(5, 440, 45), range(5, 260, 45)), -1).reshape(-1, 2)
    )
    objects = [
        ((x, y, x + rng.integers(8, 19), y + rng.integers(8, 19)), int(rng.integers(2)))
        for x, y in corners[:20]
    ]
    objects.append(((10, 30, 390, 260), 2))
    tiles = [*plan_tiles(300, 460, 100), (0, 0, 460, 300)]
    merged = merge_tiles([see(objects, tile) for tile in tiles], tiles, 300, 460)
    found = {
        (tuple(map(int, box)), int(label))
        for box, label in zip(merged.boxes_xyxy, merged.labels, strict=True)
    }
    assert found == {(tuple(map(int, box)), label) for box, label in objects}
    assert len(merged.scores) == len(objects)
    assert (merged.scores.diff() <= 0).all()


def test_nothing_found_in_any_tile():
    tiles = plan_tiles(200, 200, 100)
    merged = merge_tiles([see([], tile) for tile in tiles], tiles, 200, 200)
    assert len(merged.scores) == 0
    assert merged.boxes_xyxy.shape == (0, 4)
