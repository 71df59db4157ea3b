"""`data.cache: auto`: decoded images are kept where they need little of the free memory."""

import pytest

from detector.build import build_data, build_image_store
from detector.build import data as building
from detector.config import load_config
from detector.data import measure_image_cache

GB = 10**9


@pytest.fixture
def open_store(digits_yaml, monkeypatch):
    def open_with(free, *words):
        monkeypatch.setattr(building, "free_memory", lambda: free)
        config = load_config("yolov4-pacsp-n-mish", ["data.size=64", *words], data=str(digits_yaml))
        return build_image_store(config, build_data(config).train.reader)

    return open_with


def test_images_that_fit_a_quarter_of_the_free_memory_are_kept(open_store, digits_yaml):
    config = load_config("yolov4-pacsp-n-mish", ["data.size=64"], data=str(digits_yaml))
    reader = build_data(config).train.reader
    needed = measure_image_cache(reader.index, 64)
    assert needed == 12 * (64 * 64 * 3 + 16)  # pixels and record of each
    store, lines = open_store(4 * needed)
    assert store is not None
    assert lines == ["data.cache: 12 training images need 0.00 GB in memory"]
    kept = reader.with_store(store)
    first, again = kept.read(3).image.copy(), kept.read(3).image
    assert store.count() == 1
    assert (first == again).all()
    assert (first == reader.read(3).image).all()


def test_more_are_read_from_their_files_and_a_line_says_so(open_store):
    store, lines = open_store(4 * 12 * (64 * 64 * 3 + 16) - 4)
    assert store is None
    assert lines == [
        "data.cache: 12 training images need 0.00 GB in memory, more than a quarter of what is free "
        "(0.00 GB): they are read from their files each time"
    ]


@pytest.mark.parametrize("word", ["data.cache=none", "data.tile_buffer=16"])
def test_what_a_user_sets_stays(open_store, word):
    store, lines = open_store(100 * GB, word, "train.batch_size=4")
    assert (store is None) == (word == "data.cache=none")
    assert all("tile_buffer" in line for line in lines)
