from dataclasses import replace

import numpy as np
import pytest

from detector.data.augment.geometry import GREY, Affine
from detector.data.augment.mix import MIN_VISIBLE, CutMix, Erase, MixUp, Paste, occlude
from detector.data.augment.mosaic import Mosaic
from detector.data.augment.noise import GaussianNoise
from detector.structures import Sample

SIDE = 64


def plain(boxes=(), colour=0, side=SIDE, crowds=()):
    """An image of one colour, labels counted from 0."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    crowds = np.array(crowds, np.float32).reshape(-1, 4)
    image = np.full((side, side, 3), colour, np.uint8)
    return Sample(image, boxes, np.arange(len(boxes)), 1, crowds)


def random_boxes(rng, count, side=SIDE):
    corners = np.sort(rng.integers(0, side + 1, (count, 2, 2)), 1)
    boxes = corners.reshape(count, 4).astype(np.float32)
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)]


def reference_occlude(box, cover):
    """Pixel by pixel: the visible part of one box."""
    seen = np.zeros((SIDE, SIDE), bool)
    x1, y1, x2, y2 = box.astype(int)
    seen[y1:y2, x1:x2] = True
    area = seen.sum()
    x1, y1, x2, y2 = cover.astype(int)
    seen[y1:y2, x1:x2] = False
    if not seen.any():
        return box, 0.0
    rows, columns = np.nonzero(seen)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], seen.sum() / area


def test_occlude_equals_counting_pixels(rng):
    for _ in range(100):
        boxes = random_boxes(rng, 8)
        cover = random_boxes(rng, 4)[:1]
        if not len(cover):
            continue
        seen, share = occlude(boxes, cover[0])
        for box, left, part in zip(boxes, seen, share, strict=True):
            expected, expected_part = reference_occlude(box, cover[0])
            assert left.tolist() == list(expected)
            assert part == pytest.approx(expected_part, abs=1e-6)


def test_cutmix_takes_pixels_and_boxes_of_the_region_from_the_other_image():
    one = plain([(0, 0, 20, 20), (40, 40, 60, 60), (10, 20, 50, 30)], 10, crowds=[(50, 0, 60, 20)])
    other = plain([(30, 30, 50, 60), (0, 0, 31, 31), (40, 4, 62, 62)], 200)
    mixed = CutMix(30, 10, 64, 64).apply(one, other)
    assert (mixed.image[10:, 30:] == 200).all()
    assert (mixed.image[:10] == 10).all()
    assert (mixed.image[:, :30] == 10).all()
    assert mixed.boxes_xyxy.tolist() == [
        [0, 0, 20, 20],  # out of the region's way
        [10, 20, 30, 30],  # half of it covered: what is seen
        [30, 30, 50, 60],  # of the other: wholly inside
        [40, 10, 62, 62],  # clipped at its border; (0, 0, 31, 31) is not visible enough
    ]
    assert mixed.labels.tolist() == [0, 2, 0, 2]
    assert mixed.ignore_xyxy.tolist() == [[50, 0, 60, 10]]


def test_cutmix_keeps_both_by_visible_area(rng):
    for _ in range(50):
        one, other = plain(random_boxes(rng, 6), 1), plain(random_boxes(rng, 6), 2)
        cut = CutMix.draw(rng, height=SIDE, width=SIDE)
        mixed = cut.apply(one, other)
        seen = [reference_visible(box, mixed.image, 1) for box in one.boxes_xyxy]
        seen += [reference_visible(box, mixed.image, 2) for box in other.boxes_xyxy]
        assert len(mixed.labels) == sum(
            share >= MIN_VISIBLE and min(sides) > 2 for share, sides in seen
        )
        assert 0.3 * SIDE - 1 <= cut.x2 - cut.x1 <= 0.8 * SIDE + 1
        assert cut.x1 >= 0
        assert cut.y2 <= SIDE


def reference_visible(box, image, colour):
    """Fraction of a box's pixels with a colour, and width and height of the box around those."""
    x1, y1, x2, y2 = box.astype(int)
    mine = (image[y1:y2, x1:x2] == colour).all(-1)
    if not mine.any():
        return 0.0, (0, 0)
    rows, columns = np.nonzero(mine)
    return mine.mean(), (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_mixup_blends_pixels_and_joins_boxes(rng):
    one, other = plain([(0, 0, 9, 9)], 100), plain([(5, 5, 20, 20), (1, 2, 30, 40)], 200)
    mixed = MixUp(0.75).apply(one, other)
    assert (mixed.image == 125).all()
    assert mixed.boxes_xyxy.tolist() == [[0, 0, 9, 9], [5, 5, 20, 20], [1, 2, 30, 40]]
    assert mixed.labels.tolist() == [0, 0, 1]
    assert np.array_equal(MixUp(1.0).apply(one, other).image, one.image)
    shares = [MixUp.draw(rng).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * 17), rel=0.15)  # of Beta(8, 8)


def test_pasted_objects_replace_pixels_and_drop_covered_boxes():
    donor = plain([(4, 6, 20, 22), (0, 0, 3, 3)], 250)
    below = plain([(10, 10, 24, 24), (30, 30, 60, 60)], 10)
    result = Paste(((0, 8, 8),)).apply(below, donor)
    assert result.boxes_xyxy.tolist() == [[30, 30, 60, 60], [8, 8, 24, 24]]
    assert (result.image[8:24, 8:24] == 250).all()
    assert result.image.sum() == 10 * (SIDE * SIDE - 256) * 3 + 250 * 256 * 3
    assert (below.image == 10).all()  # the sample itself stays as it was


def test_paste_finds_free_places(rng):
    donor = plain([(0, 0, 12, 12), (20, 20, 30, 34)], 250)
    crowded = plain([(0, 0, 64, 30)], 10)
    for _ in range(20):
        paste = Paste.draw(rng, crowded, donor)
        result = paste.apply(crowded, donor)
        assert len(result.labels) == 3
        assert result.boxes_xyxy[0].tolist() == [0, 0, 64, 30]
        for x1, y1, x2, y2 in result.boxes_xyxy[1:].astype(int):
            assert (result.image[y1:y2, x1:x2] == 250).all()
            assert min(x1, y1) >= 0
            assert max(x2, y2) <= SIDE


def test_paste_skips_objects_that_are_too_small_or_too_large(rng):
    donor = plain([(0, 0, 60, 60), (0, 0, 5, 5)], 250)
    assert Paste.draw(rng, plain(), donor).objects == ()
    assert Paste.draw(rng, plain(), plain()).objects == ()


def test_erasing_covers_pixels_not_boxes(rng):
    sample = plain([(4, 5, 50, 60)], 77)
    for _ in range(50):
        erase = Erase.draw(rng, height=SIDE, width=SIDE)
        result = erase.apply(sample)
        changed = (result.image != 77).any(-1)
        outside = changed.copy()
        outside[erase.y1 : erase.y2, erase.x1 : erase.x2] = False
        assert not outside.any()
        assert 0.01 < changed.mean() < 0.25
        assert result.boxes_xyxy is sample.boxes_xyxy
        assert np.array_equal(result.image, erase.apply(sample).image)


def coloured(number, height=48, width=48):
    sample = plain([(8, 10, 40, 30)], 20 * number + 10, 48)
    return replace(sample, image=sample.image[:height, :width], labels=np.array([number]))


def test_nine_tiles_meet_about_the_first():
    tiles = [coloured(number) for number in range(9)]
    result = Mosaic(72, 72, 3).apply(tiles, 72)  # cells of 48: nothing is scaled or cut
    assert result.image.shape == (144, 144, 3)
    assert not (result.image == GREY).any()
    middle = result.image[48:96, 48:96]
    assert (middle == 10).all()
    for box, label in zip(result.boxes_xyxy.astype(int), result.labels, strict=True):
        x1, y1, x2, y2 = box
        assert (result.image[y1:y2, x1:x2] == 20 * label + 10).all()
    assert sorted(result.labels) == list(range(9))
    place = dict(zip(result.labels.tolist(), result.boxes_xyxy.tolist(), strict=True))
    assert place[0] == [56, 58, 88, 78]
    assert place[1] == [8, 10, 40, 30]  # the second is top-left, the last bottom-right
    assert place[8] == [104, 106, 136, 126]


def test_nine_tiles_of_any_shape_never_overlap(rng):
    for _ in range(20):
        shapes = rng.integers(10, 49, (9, 2))
        tiles = [coloured(n, *shape) for n, shape in enumerate(shapes)]
        tiles = [replace(t, boxes_xyxy=np.float32([[0, 0, *t.image.shape[1::-1]]])) for t in tiles]
        result = Mosaic.draw(rng, size=(72, 96), grid=3).apply(tiles, (72, 96))
        assert result.image.shape == (144, 192, 3)
        for box, label in zip(np.round(result.boxes_xyxy).astype(int), result.labels, strict=True):
            x1, y1, x2, y2 = box
            assert (result.image[y1:y2, x1:x2] == 20 * label + 10).all()


def test_four_tiles_on_a_canvas_that_is_not_square():
    tiles = [coloured(number) for number in range(4)]
    result = Mosaic(90, 40).apply(tiles, (48, 96))
    assert result.image.shape == (96, 192, 3)
    for (x1, y1, x2, y2), label in zip(result.boxes_xyxy.astype(int), result.labels, strict=True):
        assert (result.image[y1:y2, x1:x2] == 20 * label + 10).all()


@pytest.mark.parametrize("tilt", [(0.3, 0.0), (0.0, -0.3), (0.2, 0.25), (-0.3, 0.1)])
def test_perspective_moves_boxes_with_pixels(tilt):
    sample = plain([(60, 70, 120, 130)], 0, 200)
    sample.image[70:130, 60:120] = 250
    affine = Affine(zoom=0.8, shift_x=0.05, tilt_x=tilt[0], tilt_y=tilt[1])
    result = affine.apply(sample, (160, 224))
    assert result.image.shape == (160, 224, 3)
    bright = (result.image[..., 0] > 182) & (result.image[..., 0] != GREY)
    rows, columns = np.nonzero(bright)
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(result.boxes_xyxy[0] - around).max() <= 1.5


def test_the_near_edge_is_the_larger_one():
    sample = plain([], 0, 100)
    sample.image[:, 10:20] = 250
    sample.image[:, 80:90] = 250
    result = Affine(zoom=0.5, tilt_x=0.4).apply(sample, 100)  # the right edge is farther away
    left, right = (
        (result.image[:, half, 0] > 125).sum() for half in (slice(0, 50), slice(50, 100))
    )
    assert left > 1.5 * right


def test_tilts_stay_in_range(rng):
    for _ in range(50):
        affine = Affine(zoom=1.3).add_perspective(rng, 0.2)
        assert max(abs(affine.tilt_x), abs(affine.tilt_y)) <= 0.2
        assert affine.zoom == 1.3


def test_noise_has_the_given_standard_deviation_and_changes_no_box():
    """On grey, far from the ends of the range; the same seed gives the same noise."""
    grey = plain([[1, 1, 9, 9]], colour=128)
    noisy = GaussianNoise(0.1, seed=1).apply(grey)
    difference = noisy.image.astype(float) - 128
    assert difference.std() == pytest.approx(25.5, rel=0.02)
    assert abs(difference.mean()) < 1
    assert noisy.image.dtype == np.uint8
    assert np.array_equal(noisy.boxes_xyxy, grey.boxes_xyxy)
    assert np.array_equal(noisy.image, GaussianNoise(0.1, seed=1).apply(grey).image)
    assert not np.array_equal(noisy.image, GaussianNoise(0.1, seed=2).apply(grey).image)
    assert GaussianNoise(5.0, seed=1).apply(grey).image.max() == 255
