"""The whole of a training sample: which draws make it, and that augmentations are independent."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detector.data import (
    Albumentations,
    Bag,
    EpochOrder,
    ImageReader,
    TrainLoader,
    TrainSet,
    read_coco,
)
from detector.data.augment.streams import Streams

DEFAULT = Bag(mosaic=1.0, scale=0.9, translate=0.1, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, flip_lr=0.5)
EACH = [
    Bag(mosaic=1.0, mosaic9=1.0),
    Bag(perspective=0.3, scale=0.3),
    Bag(paste=1.0),
    Bag(cutmix=1.0),
    Bag(mixup=1.0),
    Bag(erase=1.0),
    Bag(noise=0.1),
    replace(DEFAULT, mosaic9=0.5, perspective=0.1, paste=0.5, cutmix=0.5, mixup=0.5, erase=0.5),
]


def train_set(root, bag, **options):
    index = read_coco(root / "train2017", root / "annotations" / "instances_train2017.json", None)
    return TrainSet(
        ImageReader(index), bag, **{"size": 96, "seed": 3, "mosaic_until": 100, **options}
    )


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("image", "boxes_xyxy", "labels", "ignore_xyxy")
    )


def reference_default(reader, seed, epoch, number, size):
    """The default recipe, straight from its description: draws in order, one box at a time."""
    rng = np.random.default_rng([seed, epoch, number])
    rng.random()  # whether there is a mosaic: always
    numbers = [number, *rng.integers(0, len(reader), 3)]
    x, y = rng.integers(size // 2, size + size // 2, 2, endpoint=True)
    zoom = rng.uniform(0.1, 1.9)
    rng.uniform(-1, 1, 3)  # rotation and shear, all 0
    shift_x, shift_y = rng.uniform(-0.1, 0.1, 2)
    gains = 1 + rng.uniform(-1, 1, 3) * [0.015, 0.7, 0.4]
    mirrored = rng.random(2)[0] < 0.5

    canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
    boxes = []
    for tile, each in enumerate(numbers):
        sample = reader.read(int(each))
        height, width = sample.image.shape[:2]
        scale = size / max(height, width)
        image = cv2.resize(
            sample.image,
            (round(width * scale), round(height * scale)),
            interpolation=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR,
        )
        height, width = image.shape[:2]
        left, top = x - width * (tile % 2 == 0), y - height * (tile < 2)
        for row in range(height):
            for column in range(width):
                if 0 <= top + row < 2 * size and 0 <= left + column < 2 * size:
                    canvas[top + row, left + column] = image[row, column]
        boxes += [
            (np.clip(box * scale + [left, top] * 2, 0, 2 * size), label)
            for box, label in zip(sample.boxes_xyxy.astype(float), sample.labels, strict=True)
        ]

    target = size * np.array([0.5 + shift_x, 0.5 + shift_y])
    move = target - zoom * size  # of pixel edges
    matrix = np.array([[zoom, 0, move[0]], [0, zoom, move[1]]])
    matrix[:, 2] += zoom / 2 - 0.5  # of pixel centres
    image = cv2.warpAffine(canvas, matrix, (size, size), borderValue=(114,) * 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    for channel in range(3):
        table = np.arange(256) * gains[channel]
        table = table % 180 if channel == 0 else np.clip(table, 0, 255)
        hsv[..., channel] = table.astype(np.uint8)[hsv[..., channel]]
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    kept, labels = [], []
    for box, label in boxes:
        moved = box * zoom + np.tile(move, 2)
        seen = np.clip(moved, 0, size)
        w, h = seen[2:] - seen[:2]
        area = np.prod(moved[2:] - moved[:2])
        if w > 2 and h > 2 and w * h > 0.1 * area and max(w / h, h / w) < 20:
            if mirrored:
                seen[[0, 2]] = size - seen[[2, 0]]
            kept.append(seen)
            labels.append(label)
    return image[:, ::-1] if mirrored else image, np.array(kept).reshape(-1, 4), labels


def test_the_default_bag_is_the_recipe(digits_root):
    dataset = train_set(digits_root, DEFAULT)
    for epoch, number in [(0, 0), (0, 7), (3, 2), (5, 11)]:
        image, boxes, labels = reference_default(dataset.reader, 3, epoch, number, 96)
        sample = dataset[epoch, number].sample
        difference = np.abs(sample.image.astype(int) - image)
        assert (
            difference.max() <= 3
        )  # OpenCV rounds coordinates to 1/32 px, here from another corner
        assert (difference > 1).mean() < 1e-3
        assert sample.boxes_xyxy == pytest.approx(boxes, abs=1e-3)
        assert sample.labels.tolist() == labels


@pytest.mark.parametrize("bag", EACH)
@pytest.mark.parametrize("size", [96, (64, 128)])
def test_every_augmentation_gives_valid_and_reproducible_samples(digits_root, bag, size):
    one, two = (train_set(digits_root, bag, size=size) for _ in range(2))
    height, width = (size, size) if isinstance(size, int) else size
    different = 0
    for number in range(8):
        sample = one[0, number].sample
        assert same(sample, two[0, number].sample)
        different += not same(sample, train_set(digits_root, Bag(), size=size)[0, number].sample)
        assert sample.image.shape == (height, width, 3)
        assert (sample.image.dtype, sample.boxes_xyxy.dtype) == (np.uint8, np.float32)
        assert sample.labels.dtype == np.int64
        assert len(sample.labels) == len(sample.boxes_xyxy)
        x1, y1, x2, y2 = sample.boxes_xyxy.T
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= width).all()
        assert (y2 <= height).all()
        assert (x2 - x1 > 1).all()
        assert (y2 - y1 > 1).all()
    assert different >= 5  # a partner may have no object large enough to paste


def test_an_augmentation_does_not_change_the_draws_of_the_others(digits_root):
    """Pixels outside the erased rectangle, and the weight of the first image, do not change."""
    plain, erased, mixed = (
        train_set(digits_root, bag)
        for bag in (DEFAULT, replace(DEFAULT, erase=1.0), replace(DEFAULT, mixup=1e-9, cutmix=1e-9))
    )
    for number in range(6):
        before, after = plain[0, number].sample, erased[0, number].sample
        changed = (before.image != after.image).any(-1)
        rows, columns = np.nonzero(changed)
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.mean() > 0.98
        assert changed.mean() < 0.25
        assert np.array_equal(before.boxes_xyxy, after.boxes_xyxy)
        assert same(before, mixed[0, number].sample)  # switched on, but not for this sample


def test_streams_are_independent():
    drawn = {
        Streams(*key).generator(name).random()
        for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
        for name in ["", "mixup", "mixup mosaic9", "cutmix", "size"]
    }
    assert len(drawn) == 20
    assert Streams(4, 5, 6).generator().random() == np.random.default_rng([4, 5, 6]).random()
    hits = [Streams(0, 0, i).chance("x", 0.3) is not None for i in range(2000)]
    assert np.mean(hits) == pytest.approx(0.3, abs=0.04)
    assert Streams(0, 0, 0).chance("x", 0.0) is None
    assert Streams(0, 0, 0).chance("x", 1.0) is not None


@pytest.mark.parametrize("switch", ["paste", "cutmix", "mixup"])
def test_images_are_no_longer_mixed_where_mosaic_ends(digits_root, switch):
    mixed = train_set(digits_root, Bag(mosaic=1.0, **{switch: 1.0}), mosaic_until=2)
    plain = train_set(digits_root, Bag())
    assert not same(mixed[1, 0].sample, plain[1, 0].sample)
    assert same(mixed[2, 0].sample, plain[2, 0].sample)


def test_an_index_beyond_the_images_repeats_one_with_other_augmentation(digits_root):
    dataset = train_set(digits_root, DEFAULT)
    first, again = dataset[0, 4].sample, dataset[0, 4 + 12].sample
    assert first.image_id == again.image_id
    assert not same(first, again)
    plain = train_set(digits_root, Bag())
    assert same(plain[0, 4].sample, plain[0, 16].sample)


def test_unreadable_partners_are_named_and_skipped(coco_root):
    (coco_root / "train2017" / "b.jpg").write_bytes(b"")
    bag = Bag(mosaic=1.0, mosaic9=1.0, paste=1.0, cutmix=1.0, mixup=1.0)
    dataset = train_set(coco_root, bag)
    items = [dataset[epoch, number] for epoch in range(3) for number in range(3)]
    assert all(item.sample is not None for item in items)
    assert all("b.jpg" in line for item in items for line in item.unreadable)
    assert any(item.unreadable for item in items)


def batches(dataset, workers, **options):
    loader = TrainLoader(dataset, batch_size=5, workers=workers, **options)
    return [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]


def test_workers_change_nothing_with_every_augmentation(digits_root):
    extra = Albumentations([("GaussNoise", {"p": 0.5}), ("Rotate", {"p": 0.5})])
    order = EpochOrder(12, 3, np.linspace(0.5, 2, 12))
    dataset = train_set(digits_root, replace(EACH[-1], extra=extra), order=order)
    options = {"sizes": [64, 96, 128]}
    for others in (1, 2):
        for a, b in zip(
            batches(dataset, 0, **options), batches(dataset, others, **options), strict=True
        ):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)
            assert torch.equal(a.labels, b.labels)


def test_batches_of_many_sizes(digits_root):
    dataset = train_set(digits_root, DEFAULT)
    loaded = batches(dataset, 0, sizes=[64, 96, 128])
    shapes = {tuple(batch.images.shape[2:]) for batch in loaded}
    assert len(shapes) > 1
    for batch in loaded:
        height, width = batch.images.shape[2:]
        assert {height, width} <= {64, 96, 128}
        assert (batch.boxes_xyxy[:, 2] <= width).all()
        assert (batch.boxes_xyxy[:, 3] <= height).all()
