import multiprocessing

import numpy as np
import pytest
import torch

from detector.data import (
    Bag,
    ImageReader,
    Letterbox,
    TrainLoader,
    TrainSet,
    UnreadableImage,
    ValSet,
    collate,
    list_images,
    read_coco,
    read_image,
    val_loader,
)
from detector.errors import UserError

FULL = Bag(
    mosaic=1.0,
    scale=0.5,
    translate=0.1,
    degrees=5,
    shear=2,
    hsv_h=0.02,
    hsv_s=0.7,
    hsv_v=0.4,
    flip_lr=0.5,
)


def index_of(root, split="train"):
    return read_coco(
        root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", None
    )


def train_set(root, bag=FULL, seed=0, size=96, mosaic_until=100):
    return TrainSet(
        ImageReader(index_of(root)), bag, size=size, seed=seed, mosaic_until=mosaic_until
    )


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("image", "boxes_xyxy", "labels", "ignore_xyxy")
    )


def test_a_sample_is_fixed_by_seed_epoch_and_index(digits_root):
    one, two = train_set(digits_root), train_set(digits_root)
    assert same(one[3, 5].sample, two[3, 5].sample)
    assert not same(one[3, 5].sample, one[4, 5].sample)
    assert not same(one[3, 5].sample, train_set(digits_root, seed=1)[3, 5].sample)


@pytest.mark.parametrize("bag", [FULL, Bag(), Bag(flip_ud=1.0, scale=0.9)])
def test_boxes_stay_inside_and_have_a_label(digits_root, bag):
    dataset = train_set(digits_root, bag)
    for number in range(12):
        sample = dataset[0, number].sample
        assert sample.image.shape == (96, 96, 3)
        assert sample.image.dtype == np.uint8
        assert sample.boxes_xyxy.dtype == np.float32
        assert sample.labels.dtype == np.int64
        assert len(sample.labels) == len(sample.boxes_xyxy)
        assert (sample.boxes_xyxy >= 0).all()
        assert (sample.boxes_xyxy <= 96).all()
        assert (sample.boxes_xyxy[:, 2:] > sample.boxes_xyxy[:, :2]).all()


def test_without_augmentation_it_is_the_letterboxed_image(digits_root):
    plain, val = (
        train_set(digits_root, Bag(), size=320),
        ValSet(ImageReader(index_of(digits_root)), Letterbox(320), batch_size=3),
    )
    for number in range(4):
        assert same(plain[0, number].sample, val[number].sample)


def test_mosaic_ends_at_its_epoch(digits_root):
    dataset = train_set(digits_root, Bag(mosaic=1.0), size=320, mosaic_until=2)
    plain = train_set(digits_root, Bag(), size=320)
    assert not same(dataset[1, 0].sample, plain[1, 0].sample)
    assert same(dataset[2, 0].sample, plain[2, 0].sample)


def batches(dataset, workers, epoch):
    loader = TrainLoader(dataset, batch_size=5, workers=workers)
    return list(loader.epoch(epoch))


def test_a_closed_loader_has_ended_its_workers_and_starts_again(digits_root):
    loader = TrainLoader(train_set(digits_root), batch_size=5, workers=2)
    first = next(loader.epoch(0))
    workers = multiprocessing.active_children()
    loader.close()
    assert [worker.exitcode for worker in workers] == [0, 0]  # torch terminates them after 5 s each
    assert torch.equal(next(loader.epoch(0)).images, first.images)
    loader.close(), loader.close()


def test_workers_change_nothing(digits_root):
    dataset = train_set(digits_root)
    for a, b in zip(batches(dataset, 0, 2), batches(dataset, 2, 2), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)
        assert torch.equal(a.image_index, b.image_index)


def test_every_image_occurs_once_per_epoch_in_another_order(digits_root):
    dataset = train_set(digits_root, Bag())
    first, second = (
        [i for batch in batches(dataset, 0, epoch) for i in batch.image_ids] for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(1, 13))
    assert first != second
    assert len(TrainLoader(dataset, batch_size=5, workers=0)) == 3


def test_collate(coco_root):
    val = ValSet(ImageReader(index_of(coco_root)), Letterbox(64), batch_size=3)
    batch = collate([val[0], val[1], val[2]])
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.image_index.tolist() == [0, 0, 1]
    assert batch.ignore_index.tolist() == [0]
    assert list(batch.image_ids) == [10, 5, 77]
    assert len(batch.placements) == 3


def test_noise_on_validation_images_is_the_same_each_time(coco_root):
    reader = ImageReader(index_of(coco_root))
    clean = ValSet(reader, Letterbox(64), batch_size=3)
    noisy, again = (ValSet(reader, Letterbox(64), batch_size=3, noise=0.1) for _ in range(2))
    image = noisy[0].sample.image
    assert np.array_equal(image, again[0].sample.image)
    assert not np.array_equal(image, clean[0].sample.image)
    assert noisy[0].placement == clean[0].placement


def damage(path, how):
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"hello"}[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "missing"])
def test_unreadable_images_are_named_and_skipped(coco_root, how):
    index = index_of(coco_root)
    victim = coco_root / "train2017" / "b.jpg"
    victim.unlink() if how == "missing" else damage(victim, how)
    with pytest.raises(UnreadableImage, match=r"b\.jpg"):
        read_image(str(victim))
    val = ValSet(ImageReader(index), Letterbox(64), batch_size=3)
    (batch,) = list(val_loader(val, workers=0))
    assert list(batch.image_ids) == [10, 77]
    assert batch.image_index.tolist() == [0, 0]
    assert len(batch.unreadable) == 1
    assert "b.jpg" in batch.unreadable[0]

    dataset = TrainSet(ImageReader(index), Bag(mosaic=1.0), size=64, seed=0, mosaic_until=9)
    items = [dataset[0, n] for n in range(3)]
    assert all(item.sample is not None for item in items)  # tiles are filled up
    assert any("b.jpg" in line for item in items for line in item.unreadable)


def test_a_batch_can_be_empty(coco_root):
    for name in ("a.jpg", "b.jpg", "empty.jpg"):
        damage(coco_root / "train2017" / name, "text")
    val = ValSet(ImageReader(index_of(coco_root)), Letterbox(64), batch_size=3)
    (batch,) = list(val_loader(val, workers=0))
    assert len(batch) == 0
    assert len(batch.unreadable) == 3


def test_image_files(tmp_path, coco_root):
    folder = coco_root / "train2017"
    (folder / "notes.txt").write_text("")
    paths = list_images([str(folder / "b.jpg"), str(folder)])
    assert [path.name for path in paths] == ["b.jpg", "a.jpg", "b.jpg", "empty.jpg"]
    with pytest.raises(UserError, match="no such file"):
        list_images([str(tmp_path / "none.jpg")])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no images in this folder"):
        list_images([str(tmp_path / "nothing")])
