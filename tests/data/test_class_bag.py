"""Augmentation of classifiers: crops, and mixes whose class shares are those of the pixels."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from detector.data import CentreCrop, ClassBag, ImageReader, TrainLoader, TrainSet
from detector.data.augment.class_mix import (
    Quadrants,
    blend_classes,
    cut_classes,
    make_class_sample,
)
from detector.data.augment.crop import Crop, crop_centre
from detector.data.augment.mix import CutMix, MixUp
from detector.data.readers.torchvision_files import _make_array_index

S = 32


@pytest.fixture(scope="module")
def reader():
    """Twenty images of one colour each: image i has value 10 i and class i % 10."""
    numbers = np.arange(20)
    pixels = np.ones((20, S, S, 3), np.uint8) * (10 * numbers[:, None, None, None]).astype(np.uint8)
    names = tuple("abcdefghij")
    index = _make_array_index(Path("/none"), "train", pixels, numbers % 10, names)
    return ImageReader(index)


def flat(value, label):
    return make_class_sample(np.full((S, S, 3), value, np.uint8), label, 1)


def train_set(reader, **strengths):
    return TrainSet(reader, ClassBag(**strengths), size=S, seed=1, mosaic_until=5)


def test_without_augmentation_an_image_is_as_in_an_evaluation():
    rng = np.random.default_rng(0)
    for height, width in ((40, 77), (300, 200), (32, 32), (9, 50)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        sample = make_class_sample(image, 3, 1)
        placed, _ = CentreCrop(S).place(sample, (S, S))
        assert np.array_equal(crop_centre(image, (S, S)), placed.image)


def test_resized_crops_have_the_drawn_area_and_ratio():
    rng = np.random.default_rng(0)
    crops = [
        Crop.draw_resized(rng, (400, 600), area=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
        for _ in range(2000)
    ]
    areas = np.array([crop.width * crop.height for crop in crops]) / (400 * 600)
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert 0.079 < areas.min() < 0.1
    assert areas.max() < 1.0
    small = areas[areas < 0.5]  # larger ones may not fit and are drawn again
    assert stats.kstest(small, stats.uniform(0.08, small.max() - 0.08).cdf).pvalue > 0.01
    assert 0.74 < ratios.min() < 0.8
    assert 1.25 < ratios.max() < 1.35
    for crop in crops:
        assert crop.x >= 0
        assert crop.y >= 0
        assert crop.x + crop.width <= 600
        assert crop.y + crop.height <= 400


def test_a_crop_that_cannot_fit_is_central():
    crop = Crop.draw_resized(
        np.random.default_rng(0), (10, 1000), area=(0.9, 1.0), ratio=(3 / 4, 4 / 3)
    )
    assert crop == Crop((1000 - 13) // 2, 0, 13, 10)


def test_short_side_crops_as_darknet():
    """The shorter side of 200 x 100 px becomes 128 to 448 px, for crops of 256."""
    rng = np.random.default_rng(0)
    crops = [
        Crop.draw_short_side(rng, (100, 200), (256, 256), zoom=(0.5, 1.75), ratio=(1.0, 1.0))
        for _ in range(500)
    ]
    sides = np.array([256 / crop.height * 100 for crop in crops])  # of the scaled image
    assert 127 < sides.min() < 135
    assert 435 < sides.max() < 452
    assert abs(sides.mean() - 288) < 10
    image = np.full((100, 200, 3), 200, np.uint8)
    for crop in crops[:50]:
        result = crop.apply(image, (256, 256))
        assert result.shape == (256, 256, 3)
        shown = (result[:, :, 0] == 200).mean()
        inside = min(crop.width, 200) * min(crop.height, 100) / (crop.width * crop.height)
        assert abs(shown - inside) < 0.03, "all of an image that is smaller than the crop is shown"


def test_padded_crops_shift_by_whole_pixels():
    image = np.random.default_rng(0).integers(1, 256, (S, S, 3), dtype=np.uint8)
    shifts = set()
    for seed in range(300):
        crop = Crop.draw_padded(np.random.default_rng(seed), (S, S), 4)
        shifts.add((crop.x, crop.y))
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        expected = padded[4 + crop.y :, 4 + crop.x :][:S, :S]
        assert np.array_equal(crop.apply(image, (S, S), fill=0), expected)
    assert {x for x, _ in shifts} == {y for _, y in shifts} == set(range(-4, 5))


def test_cutmix_of_the_paper():
    """Area 1 - lambda with lambda from Beta, at a centre anywhere, clipped to the image."""
    rng = np.random.default_rng(0)
    drawn = [CutMix.draw(rng, height=1000, width=500, alpha=1.0) for _ in range(2000)]
    inner = [d for d in drawn if d.x1 and d.y1 and d.x2 < 500 and d.y2 < 1000]
    assert all(abs((d.y2 - d.y1) - 2 * (d.x2 - d.x1)) <= 2 for d in inner)
    # a rectangle of relative width s is shorter by s / 4 on average, since it is clipped on both sides
    shares = [(d.x2 - d.x1) * (d.y2 - d.y1) / 500_000 for d in drawn]
    sides = np.sqrt(np.random.default_rng(1).random(100_000))
    assert abs(np.mean(shares) - np.mean(sides**2 * (1 - sides / 4) ** 2)) < 0.015
    assert min(shares) >= 0


def test_the_shares_are_those_of_the_pixels():
    first, other = flat(50, 2), flat(200, 7)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        region = CutMix.draw(rng, height=S, width=S, alpha=seed % 2)
        mixed = cut_classes(region, first, other)
        assert mixed.labels.tolist() == [2, 7]
        assert mixed.shares[1] == pytest.approx((mixed.image[..., 0] == 200).mean())
        assert mixed.shares.sum() == pytest.approx(1)
        blend = MixUp.draw(rng, 0.2)
        mixed = blend_classes(blend, first, other)
        assert mixed.image[0, 0, 0] == pytest.approx(
            50 * blend.share + 200 * (1 - blend.share), abs=1
        )
        assert mixed.shares.tolist() == pytest.approx([blend.share, 1 - blend.share])
        four = [flat(value, label) for value, label in ((10, 0), (20, 1), (30, 2), (40, 0))]
        quadrants = Quadrants.draw(rng, (S, S))
        mixed = quadrants.apply(four)
        for place, value in enumerate((10, 20, 30, 40)):
            assert mixed.shares[place] == pytest.approx((mixed.image[..., 0] == value).mean())
        assert min(quadrants.x, quadrants.y) > 0.2 * S - 1
        assert max(quadrants.x, quadrants.y) < 0.8 * S + 1


def test_a_tile_of_a_mosaic_stays_where_it_is():
    rng = np.random.default_rng(0)
    samples = [
        make_class_sample(rng.integers(0, 256, (S, S, 3), dtype=np.uint8), label, 1)
        for label in range(4)
    ]
    image = Quadrants(10, 20).apply(samples).image
    assert np.array_equal(image[:20, 10:], samples[1].image[:20, 10:])
    assert np.array_equal(image[20:, :10], samples[2].image[20:, :10])


def test_an_image_takes_at_most_one_mix(reader):
    """Of 600 samples, each mix has its probability."""
    data = train_set(reader, mosaic=0.25, cutmix=0.25, mixup=0.2)
    counts = [len(data.sample(0, index).sample.labels) for index in range(600)]
    assert stats.binomtest(counts.count(4), 600, 0.25).pvalue > 0.001
    assert stats.binomtest(counts.count(2), 600, 0.45).pvalue > 0.001
    assert counts.count(1) + counts.count(2) + counts.count(4) == 600


def test_the_shares_reach_the_loss(reader):
    """The target of each image of a batch is the share of its pixels that each class has."""
    data = train_set(reader, mosaic=0.4, cutmix=0.5)
    batch = next(TrainLoader(data, batch_size=20, workers=0).epoch(0))
    targets = batch.class_shares(10)
    assert ((targets > 0) & (targets < 1)).any()
    labels = (batch.images[:, 0] // 10 % 10).long()  # of each pixel
    for target, image in zip(targets, labels, strict=True):
        pixels = torch.bincount(image.reshape(-1), minlength=10) / S**2
        assert torch.allclose(target, pixels, atol=1e-6)
    halves = batch.chunk(2)
    assert torch.equal(torch.cat([half.class_shares(10) for half in halves]), targets)


def test_a_mix_changes_nothing_else(reader):
    """The pixels outside the region, and the samples without a mix, are those of a bag without it."""
    strengths = {"crop": "padded", "flip_lr": 0.5, "hsv_v": 0.3, "degrees": 10.0}
    plain, mixed = (train_set(reader, **strengths, cutmix=share) for share in (0.0, 0.5))
    more = train_set(reader, **strengths, cutmix=0.5, mixup=0.3)
    for index in range(40):
        alone, cut = plain.sample(1, index).sample, mixed.sample(1, index).sample
        if len(cut.labels) == 1:
            assert np.array_equal(alone.image, cut.image)
            continue
        assert np.array_equal(cut.image, more.sample(1, index).sample.image)
        x1, y1, x2, y2 = cut.boxes_xyxy[1].astype(int)
        outside = np.ones((S, S), bool)
        outside[y1:y2, x1:x2] = False
        assert np.array_equal(alone.image[outside], cut.image[outside])
    late = mixed.with_mosaic_until(0)
    assert all(len(late.sample(1, index).sample.labels) == 1 for index in range(40))


def test_one_value_decides_which_mix():
    bag = ClassBag(mosaic=0.25, cutmix=0.25, mixup=0.5)
    assert [bag.choose_mix(v) for v in (0.0, 0.24, 0.25, 0.49, 0.5, 0.999)] == [
        *("mosaic", "mosaic", "cutmix", "cutmix", "mixup", "mixup")
    ]
    assert ClassBag(cutmix=0.5).choose_mix(0.6) is None


def test_mixup_is_drawn_from_beta():
    rng = np.random.default_rng(0)
    shares = [MixUp.draw(rng, 0.2).share for _ in range(500)]
    assert stats.kstest(shares, stats.beta(0.2, 0.2).cdf).pvalue > 0.01
    assert math.isclose(np.mean([MixUp.draw(rng).share for _ in range(500)]), 0.5, abs_tol=0.02)
