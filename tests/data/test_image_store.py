"""Caching affects only speed; outdated or damaged pixels are never used."""

import errno
import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.data import (
    Bag,
    EpochOrder,
    ImageReader,
    TrainLoader,
    TrainSet,
    UnreadableImage,
    cache_name,
    open_disk_file,
    open_image_cache,
    open_memory_file,
    open_tile_buffer,
    positions_in_flight,
    read_coco,
)
from detector.data import image_reader as reader_module
from detector.data.augment.geometry import shrink_image, shrink_shapes
from detector.data.image_sources import ImageSources
from detector.data.store import free_memory as memory
from detector.data.store import image_store
from detector.errors import UserError

BAG = Bag(mosaic=1.0, mosaic9=0.3, scale=0.5, translate=0.1, paste=0.3, cutmix=0.3, mixup=0.3)
SIDE = 96  # of the digits' 320 px, so that images are shrunk


def index_of(root):
    return read_coco(root / "train2017", root / "annotations" / "instances_train2017.json", None)


def train_set(index, store=None, window=0):
    return TrainSet(
        ImageReader(index, SIDE, store=store),
        BAG,
        size=SIDE,
        seed=3,
        mosaic_until=99,
        window=window,
    )


def everything(dataset):
    return [dataset[epoch, number].sample for epoch in range(2) for number in range(len(dataset))]


def assert_same(samples, others):
    for one, other in zip(samples, others, strict=True):
        for name in ("image", "boxes_xyxy", "labels", "ignore_xyxy"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.fixture
def files_read(monkeypatch):
    """The names of the files that were decoded."""
    read = []

    def counting(path):
        read.append(Path(path).name)
        return image_of(path)

    image_of = reader_module.read_image
    monkeypatch.setattr(reader_module, "read_image", counting)
    return read


def kept_in(place, index, tmp_path):
    if place == "ram":
        return open_image_cache(index, SIDE, open_memory_file(), 1.0)[0]
    if place == "ring":
        return open_tile_buffer(index, SIDE, len(index), open_memory_file())[0]
    return open_image_cache(index, SIDE, open_disk_file(tmp_path, "train.pixels"), 1.0)[0]


@pytest.mark.parametrize("place", ["ram", "disk", "ring"])
def test_the_samples_are_the_same_and_a_file_is_read_once(place, digits_root, tmp_path, files_read):
    index = index_of(digits_root)
    window = 5 if place == "ring" else 0
    plain = everything(train_set(index, window=window))
    assert len(files_read) > 3 * len(index)
    files_read.clear()
    kept = train_set(index, kept_in(place, index, tmp_path), window)
    assert_same(plain, everything(kept))
    if place != "ring":  # whose positions mean other images in the second epoch
        assert sorted(files_read) == sorted(index.files)


def test_a_ring_decodes_each_image_of_an_epoch_once(digits_root, files_read):
    index = index_of(digits_root)
    store, line = open_tile_buffer(index, SIDE, 5 + 3, open_memory_file())
    assert "the last 8 training images need " in line
    data = train_set(index, store, window=5)
    for number in data.order.indices(0).tolist():
        data[0, number]
    assert sorted(files_read) == sorted(index.files)


def test_mixed_in_images_come_from_the_window(digits_root):
    index = index_of(digits_root)
    order = EpochOrder(12, 3, np.full(12, 1.5)).indices(4).tolist()
    data = TrainSet(
        ImageReader(index),
        BAG,
        size=SIDE,
        seed=3,
        mosaic_until=9,
        order=EpochOrder(12, 3, np.full(12, 1.5)),
        window=4,
    )
    rng = np.random.default_rng(0)
    for position, index_there in enumerate(order):
        partners = ImageSources(data.reader, data.order, 4, epoch=4, index=index_there)
        assert partners.own == (index_there % 12, position)
        drawn = set(partners.draw(rng, 300))
        first = max(position - 3, 0)
        assert drawn == {(order[p] % 12, p) for p in range(first, first + 4)}


# A spawned worker imports torch, seconds each: slow.
@pytest.mark.parametrize(
    ("place", "context"),
    [
        ("ram", "fork"),
        ("disk", "fork"),
        ("ring", "fork"),
        pytest.param("ring", "spawn", marks=pytest.mark.slow),
        pytest.param("ram", "spawn", marks=pytest.mark.slow),
        pytest.param("disk", "spawn", marks=pytest.mark.slow),
    ],
)
def test_workers_share_the_cache_and_change_nothing(place, context, digits_root, tmp_path):
    index, window = index_of(digits_root), 5 if place == "ring" else 0
    store = kept_in(place, index, tmp_path)
    if place == "ring":
        store = open_tile_buffer(index, SIDE, 5 + positions_in_flight(4, 2), open_memory_file())[0]
    plain = TrainLoader(train_set(index, window=window), batch_size=4, workers=0)
    loader = TrainLoader(train_set(index, store, window), batch_size=4, workers=2)
    loader._loader.multiprocessing_context = context
    for epoch in range(2):
        for one, other in zip(plain.epoch(epoch), loader.epoch(epoch), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
    assert store.count() >= len(index)  # this process has put nothing there


def test_a_file_that_changed_is_read_again(digits_root, tmp_path, files_read):
    index = index_of(digits_root)
    copies = tmp_path / "images"
    copies.mkdir()
    for name in index.files:
        (copies / name).write_bytes((index.folder / name).read_bytes())
    index = replace(index, folder=copies)
    place = open_disk_file(tmp_path, "train.pixels")
    store, line = open_image_cache(index, SIDE, place, 1.0)
    reader = ImageReader(index, SIDE, store=store)
    assert line.startswith("data.cache: 12 training images need ")
    assert line.endswith(f" GB in {place.path}")
    for number in range(12):
        reader.read(number)
    files_read.clear()

    store, line = open_image_cache(index, SIDE, place, 1.0)
    again = ImageReader(index, SIDE, store=store)
    assert line.endswith("12 are cached already")
    cv2.imwrite(str(copies / index.files[3]), np.zeros((320, 320, 3), np.uint8))
    (copies / index.files[5]).unlink()
    with pytest.raises(UnreadableImage, match=r"no such file"):
        again.read(5)
    assert again.read(3).image.max() < 10
    assert again.read(4).image.max() > 10
    assert files_read == [index.files[5], index.files[3]]


def test_lost_bytes_are_detected(digits_root, tmp_path, files_read):
    index, place = index_of(digits_root), open_disk_file(tmp_path, "train.pixels")
    store, _ = open_image_cache(index, SIDE, place, 1.0)
    reader = ImageReader(index, SIDE, store=store)
    before = [reader.read(number).image.copy() for number in range(12)]
    content = bytearray(place.path.read_bytes())
    content[-SIDE * SIDE * 3 * 2 : -SIDE * SIDE * 3 * 2 + 4096] = bytes(4096)  # a page of number 10
    place.path.write_bytes(content)
    files_read.clear()
    reader = reader.with_store(open_image_cache(index, SIDE, place, 1.0)[0])
    assert_equal = [np.array_equal(reader.read(n).image, before[n]) for n in range(12)]
    assert all(assert_equal)
    assert files_read == [index.files[10]]


def test_images_beyond_the_limit_are_read_each_time(digits_root, files_read):
    index = index_of(digits_root)
    one = SIDE * SIDE * 3
    store, line = open_image_cache(index, SIDE, open_memory_file(), (one * 5 + 12 * 16 + 100) / 1e9)
    assert "the limit is 0.00 GB (data.cache_limit)" in line
    assert "5 images are cached, the others are read from their files each time" in line
    plain = everything(train_set(index))
    files_read.clear()
    data = train_set(index, store)
    assert_same(plain, everything(data))
    files_read.clear()
    everything(data)
    assert set(files_read) == set(index.files[5:])


def test_a_full_disk_only_disables_the_cache(digits_root, tmp_path, monkeypatch):
    index = index_of(digits_root)
    plain = everything(train_set(index))
    data = train_set(index, kept_in("disk", index, tmp_path))
    written, write = [], os.pwrite

    def full(file, content, start):
        written.append(start)
        if len(written) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content, start)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(RuntimeWarning, match=r"No space left.*read from their files") as warned:
        samples = everything(data)
    assert_same(plain, samples)
    assert len(warned) == 1


def test_an_image_with_another_size_than_annotated_is_not_cached(digits_root):
    index = index_of(digits_root)
    sizes = index.sizes.copy()
    sizes[2] = [300, 320]
    index = replace(index, sizes=sizes)
    store, _ = open_image_cache(index, SIDE, open_memory_file(), 1.0)
    assert_same(everything(train_set(index)), everything(train_set(index, store)))
    assert store.count() == 11


def test_another_process_sees_cached_images(digits_root):
    index = index_of(digits_root)
    store, _ = open_image_cache(index, SIDE, open_memory_file(), 1.0)
    other = pickle.loads(pickle.dumps(store))
    image = ImageReader(index, SIDE).read(7).image
    assert other.get(7, None, 8) is None
    store.put(7, None, 8, image)
    assert np.array_equal(other.get(7, None, 8), image)
    assert not other.get(7, None, 8).flags.writeable


def test_each_size_and_image_list_has_its_own_file(digits_root, monkeypatch):
    index = index_of(digits_root)
    names = {
        cache_name(index, "train", 96),
        cache_name(index, "train", 64),
        cache_name(replace(index, files=index.files[:6]), "train", 96),
        cache_name(replace(index, folder=index.folder / "other"), "train", 96),
    }
    monkeypatch.setattr(cv2, "__version__", "9.9")
    names.add(cache_name(index, "train", 96))
    assert len(names) == 5


def test_a_ring_that_does_not_fit_is_reported(digits_root, monkeypatch):
    monkeypatch.setattr(image_store, "free_memory", lambda: 2 * 10**6)
    store, line = open_tile_buffer(index_of(digits_root), 320, 100, open_memory_file())
    assert store is None
    assert "the last 100 training images need 0.03 GB, more than half of the free memory" in line


def test_a_cache_without_a_writable_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    assert open_disk_file(tmp_path / "data", "a.pixels").path.parent.name == ".detector"
    with pytest.raises(UserError, match=r"neither .* can be written to; try ram"):
        open_disk_file(tmp_path / "file", "a.pixels")


def test_the_shapes_are_those_that_shrinking_gives(rng):
    sizes = rng.integers(1, 400, (300, 2))
    shapes = shrink_shapes(sizes, 96)
    for (height, width), shape in zip(sizes.tolist(), shapes.tolist(), strict=True):
        assert list(shrink_image(np.zeros((height, width, 3), np.uint8), 96).shape[:2]) == shape


def test_the_free_memory_of_a_container_is_that_of_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_control_groups", lambda: [tmp_path / "job", tmp_path])
    whole = memory.free_memory()
    assert whole > 10**8
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "memory.max").write_text("5000000\n")
    (tmp_path / "job" / "memory.current").write_text("3000000\n")
    (tmp_path / "job" / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert memory.free_memory() == 2_500_000
    (tmp_path / "job" / "memory.max").write_text("max\n")
    assert memory.free_memory() > 10**8
