import os
from dataclasses import replace

import numpy as np
import pytest

from detector.data import Albumentations
from detector.errors import UserError
from detector.structures import Sample


def sample(height=60, width=80):
    image = np.zeros((height, width, 3), np.uint8)
    image[10:30, 20:50] = (250, 0, 0)
    return Sample(
        image,
        np.float32([[20, 10, 50, 30]]),
        np.array([5]),
        1,
        np.float32([[0, 40, 10, 60]]),
    )


def around_red(image):
    rows, columns = np.nonzero(image[..., 0] > 125)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_follow_a_transform_that_moves_pixels(rng):
    result = Albumentations([("HorizontalFlip", {"p": 1.0})])(sample(), rng)
    assert result.boxes_xyxy.tolist() == [[30, 10, 60, 30]]
    assert result.boxes_xyxy[0].tolist() == around_red(result.image)
    assert result.boxes_xyxy.dtype == np.float32
    assert result.labels.tolist() == [5]
    assert result.ignore_xyxy.tolist() == [[70, 40, 80, 60]]


def test_pixel_transforms_do_not_change_boxes(rng):
    before = sample()
    result = Albumentations([("GaussNoise", {"p": 1.0})])(before, rng)
    assert result.boxes_xyxy is before.boxes_xyxy
    assert (result.image != before.image).any()
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_the_same_numbers_give_the_same_image():
    chain = Albumentations(
        [
            ("GaussNoise", {"p": 0.5}),
            ("Rotate", {"limit": (-30, 30), "p": 0.5}),
            ("Blur", {"p": 0.5}),
        ]
    )
    different = set()
    for seed in range(6):
        one, two = (chain(sample(), np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.boxes_xyxy, two.boxes_xyxy)
        different.add(one.image.tobytes())
    assert len(different) > 1


def test_a_crop_is_scaled_back(rng):
    chain = Albumentations([("Crop", {"x_max": 60, "y_max": 45, "p": 1.0})])
    result = chain(sample(), rng)
    assert result.image.shape == (60, 80, 3)
    assert np.abs(result.boxes_xyxy[0] - around_red(result.image)).max() <= 1


def test_without_boxes(rng):
    none = np.zeros((0, 4), np.float32)
    empty = replace(sample(), boxes_xyxy=none, labels=np.zeros(0, np.int64), ignore_xyxy=none)
    result = Albumentations([("VerticalFlip", {"p": 1.0})])(empty, rng)
    assert result.boxes_xyxy.shape == (0, 4)
    assert result.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("GausNoise", {}, "no transform 'GausNoise'; did you mean GaussNoise?"),
        ("Compose", {}, "no transform 'Compose'"),
        ("GaussNoise", {"std_rang": (0.1, 0.2)}, "no argument 'std_rang'; did you mean std_range?"),
        ("GaussNoise", {"std_range": (3, 4)}, "GaussNoise: 1 validation error"),
        ("GaussNoise", {"p": "often"}, "GaussNoise: 1 validation error"),
        ("RandomCrop", {}, "RandomCrop: "),
    ],
)
def test_mistakes_are_one_clear_line(name, arguments, message):
    with pytest.raises(UserError) as caught:
        Albumentations([(name, arguments)])
    assert message in str(caught.value)
    assert str(caught.value).startswith("bag.albumentations: ")
    assert "\n" not in str(caught.value)


def test_transforms_that_fail_or_return_other_types(rng):
    with pytest.raises(UserError, match="fails on an image of 80x60 px"):
        Albumentations([("RandomCrop", {"height": 500, "width": 500, "p": 1.0})])(sample(), rng)
    with pytest.raises(UserError, match="ToTensorV2"):
        Albumentations([("ToTensorV2", {})])(sample(), rng)
