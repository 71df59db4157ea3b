from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.boxes import transform_boxes
from detector.data.augment.color import HSV
from detector.data.augment.geometry import GREY, Affine, Flip, letterbox, resize_to_fit
from detector.data.augment.mosaic import Mosaic
from detector.structures import Sample


def block(height, width, boxes, colours=None):
    """A black image with each box in its own colour, by which its pixels can be recognised."""
    image = np.zeros((height, width, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = colours[number] if colours else (250, 0, 0)
    none = np.zeros((0, 4), np.float32)
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)), 1, none)


def sample_of(image):
    """An image without boxes."""
    none = np.zeros((0, 4), np.float32)
    return Sample(image, none, np.zeros(0, np.int64), 1, none)


def seen(image, channel=0, least=125):
    """The box around the bright pixels of a channel."""
    rows, columns = np.nonzero((image[..., channel] > least) & (image[..., 1] < 60))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (64, 64), (333, 500), (10, 640)])
def test_letterbox_moves_boxes_with_pixels_and_back(shape):
    height, width = shape
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    placed, where = letterbox(block(height, width, [box]), 320)
    assert placed.image.shape == (320, 320, 3)
    assert np.abs(placed.boxes_xyxy[0] - seen(placed.image)).max() <= 1
    back = where.to_original(torch.from_numpy(placed.boxes_xyxy))
    assert torch.allclose(back, torch.tensor([box], dtype=torch.float32), atol=1e-3)


def test_letterbox_is_grey_outside_and_keeps_an_image_of_its_size():
    placed, _ = letterbox(block(10, 20, []), 40)
    assert (placed.image[:10] == GREY).all()
    assert (placed.image[-10:] == GREY).all()
    sample = block(32, 32, [(3, 4, 9, 20)])
    same, _ = letterbox(sample, 32)
    assert np.array_equal(same.image, sample.image)
    assert np.array_equal(same.boxes_xyxy, sample.boxes_xyxy)


def test_predictions_outside_the_image_are_clipped_on_the_way_back():
    _, where = letterbox(block(60, 100, []), 320)
    boxes = where.to_original(torch.tensor([[-50.0, -50.0, 500.0, 500.0]]))
    assert boxes.tolist() == [[0.0, 0.0, 100.0, 60.0]]


def test_scaling_image_and_boxes_together():
    small = resize_to_fit(block(100, 200, [(20, 30, 120, 90)]), 100)
    assert small.image.shape == (50, 100, 3)
    assert small.boxes_xyxy.tolist() == [[10, 15, 60, 45]]


@pytest.mark.parametrize("flip", [Flip(True, False), Flip(False, True), Flip(True, True)])
def test_flip_twice_is_the_identity_and_boxes_follow_pixels(flip):
    sample = block(40, 60, [(5, 6, 25, 18)])
    once = flip.apply(sample)
    assert once.boxes_xyxy[0].tolist() == seen(once.image)
    twice = flip.apply(once)
    assert np.array_equal(twice.image, sample.image)
    assert np.array_equal(twice.boxes_xyxy, sample.boxes_xyxy)


@pytest.mark.parametrize(
    "affine",
    [
        Affine(),
        Affine(zoom=0.6),
        Affine(zoom=1.4),
        Affine(shift_x=0.1, shift_y=-0.15),
        Affine(degrees=90),
        Affine(zoom=0.8, degrees=-90, shift_x=0.05),
    ],
)
def test_affine_moves_boxes_with_pixels(affine):
    result = affine.apply(block(200, 160, [(60, 80, 100, 110)]), 180)
    assert result.image.shape == (180, 180, 3)
    assert np.abs(result.boxes_xyxy[0] - seen(result.image)).max() <= 1


def test_affine_identity_changes_nothing():
    sample = block(64, 64, [(3, 4, 30, 40)])
    same = Affine().apply(sample, 64)
    assert np.array_equal(same.image, sample.image)
    assert np.array_equal(same.boxes_xyxy, sample.boxes_xyxy)


def test_rotated_and_sheared_boxes_contain_their_pixels(rng):
    for _ in range(20):
        affine = Affine.draw(rng, scale=0.3, translate=0.1, degrees=45, shear=15)
        result = affine.apply(block(200, 200, [(80, 90, 120, 115)]), 200)
        x1, y1, x2, y2 = result.boxes_xyxy[0]
        left, top, right, bottom = seen(result.image)
        assert x1 - 1 <= left
        assert y1 - 1 <= top
        assert x2 + 1 >= right
        assert y2 + 1 >= bottom


def test_affine_drops_what_is_no_longer_recognisable():
    boxes = [(0, 0, 100, 100), (95, 40, 99, 44), (10, 50, 90, 52)]
    result = Affine(shift_x=0.45).apply(block(100, 100, boxes), 100)
    assert result.labels.tolist() == [0]  # the second left the image, the third is 2 px high
    assert result.boxes_xyxy.tolist() == [[45, 0, 100, 100]]


def test_draw_stays_in_range(rng):
    for _ in range(200):
        a = Affine.draw(rng, scale=0.5, translate=0.1, degrees=10, shear=2)
        assert 0.5 <= a.zoom <= 1.5
        assert abs(a.degrees) <= 10
        assert max(abs(a.shear_x), abs(a.shear_y)) <= 2
        assert max(abs(a.shift_x), abs(a.shift_y)) <= 0.1
        m = Mosaic.draw(rng, size=64)
        assert 32 <= m.x <= 96
        assert 32 <= m.y <= 96


def test_mosaic_tiles_meet_and_boxes_follow_pixels():
    colours = [(250, 0, 0), (200, 0, 0), (160, 0, 0), (140, 0, 0)]
    tiles = [block(64, 64, [(20, 24, 44, 40)], [c]) for c in colours]
    result = Mosaic(70, 50).apply(tiles, 64)
    assert result.image.shape == (128, 128, 3)
    for (x1, y1, x2, y2), colour in zip(result.boxes_xyxy.astype(int), colours, strict=True):
        assert (result.image[y1:y2, x1:x2] == colour).all()
    assert result.boxes_xyxy.tolist() == [
        [26, 10, 50, 26],
        [90, 10, 114, 26],
        [26, 74, 50, 90],
        [90, 74, 114, 90],
    ]


def test_mosaic_clips_boxes_at_the_canvas():
    tiles = [block(64, 64, [(0, 0, 64, 64)]) for _ in range(4)]
    result = Mosaic(32, 96).apply(tiles, 64)
    assert result.boxes_xyxy[0].tolist() == [0, 32, 32, 96]
    assert result.boxes_xyxy[3].tolist() == [32, 96, 96, 128]


def test_mosaic_carries_crowds():
    crowd = replace(block(64, 64, []), ignore_xyxy=np.float32([[10, 10, 20, 20]]))
    empty = block(64, 64, [])
    result = Mosaic(64, 64).apply([empty, crowd, empty, empty], 64)
    assert result.ignore_xyxy.tolist() == [[74, 10, 84, 20]]


def test_hsv_identity_and_range(rng):
    sample = block(32, 32, [(3, 4, 30, 30)])
    assert HSV().apply(sample) is sample
    darker = HSV(value=0.5).apply(sample)
    assert darker.image[10, 10].tolist() == [125, 0, 0]
    assert HSV.draw(rng, h=0, s=0, v=0) == HSV()


def test_affine_uses_only_its_visible_region(rng):
    """Pixels outside it do not change the result."""
    smaller = 0
    for size in [(64, 64), (64, 96), (96, 32)] * 20:
        canvas = (2 * size[0], 2 * size[1])
        affine = Affine.draw(rng, scale=0.9, translate=0.3, degrees=40, shear=10)
        x1, y1, x2, y2 = affine.visible_region(*canvas, size)
        assert 0 <= x1 <= x2 <= canvas[1]
        assert 0 <= y1 <= y2 <= canvas[0]
        image = rng.integers(0, 256, (*canvas, 3), np.uint8)
        noise = rng.integers(0, 256, (*canvas, 3), np.uint8)
        noise[y1:y2, x1:x2] = image[y1:y2, x1:x2]
        one, other = (affine.apply(sample_of(each), size).image for each in (image, noise))
        assert np.array_equal(one, other)
        smaller += (x2 - x1) * (y2 - y1) < canvas[0] * canvas[1] / 2
    assert smaller > 10
    tilted = Affine(tilt_x=0.1)
    assert tilted.visible_region(128, 128, 64) == (0, 0, 128, 128)


def test_outside_the_covered_region_there_is_uniform_grey(rng):
    """So that colour jitter there can be computed from one pixel."""
    smaller = 0
    for number in range(60):
        image = rng.integers(0, 256, (128, 96, 3), np.uint8)
        affine = Affine.draw(rng, scale=0.9, translate=0.3, degrees=30 * (number % 2), shear=5)
        if number % 5 == 0:
            affine = affine.add_perspective(rng, 0.2)
        moved = affine.apply(sample_of(image), (64, 96))
        x1, y1, x2, y2 = within = affine.covered_region(128, 96, (64, 96))
        outside = np.ones((64, 96), bool)
        outside[y1:y2, x1:x2] = False
        assert (moved.image[outside] == GREY).all()
        colour = HSV.draw(rng, h=0.1, s=0.7, v=0.4)
        whole, part = (colour.apply(moved, each).image.astype(int) for each in (None, within))
        assert np.array_equal(whole[outside], part[outside])
        # the last pixels of a row are rounded otherwise by OpenCV than those it takes many at a time
        assert np.abs(whole - part).max() <= 1
        smaller += outside.mean() > 0.25
    assert smaller > 10


@pytest.mark.parametrize("grid", [2, 3])
def test_a_mosaic_is_complete_within_its_visible_region(rng, grid):
    for _ in range(20):
        tiles = [
            sample_of(rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), np.uint8))
            for _ in range(grid**2)
        ]
        mosaic = Mosaic.draw(rng, size=64, grid=grid)
        (x1, x2), (y1, y2) = (sorted(rng.integers(0, 129, 2).tolist()) for _ in range(2))
        whole, part = mosaic.apply(tiles, 64), mosaic.apply(tiles, 64, (x1, y1, x2, y2))
        assert np.array_equal(whole.image[y1:y2, x1:x2], part.image[y1:y2, x1:x2])


def test_transformed_boxes_bound_their_moved_corners(rng):
    low = rng.uniform(0, 50, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 50, (40, 2))], 1).astype(np.float32)
    for tilt in (0.0, 0.2):
        for _ in range(20):
            affine = Affine.draw(rng, scale=0.9, translate=0.3, degrees=180, shear=30)
            matrix = affine.add_perspective(rng, tilt).matrix(100, 100, 100)
            expected = []
            for x1, y1, x2, y2 in boxes.tolist():
                corners = [matrix @ [x, y, 1] for x in (x1, x2) for y in (y1, y2)]
                points = np.array([(u / w, v / w) for u, v, w in corners])
                expected.append([*points.min(0), *points.max(0)])
            assert transform_boxes(boxes, matrix) == pytest.approx(np.array(expected), rel=1e-5)
