"""Throughput of the training loader against the OpenCV calls that it cannot avoid.

Each mode has a baseline: one function that makes the OpenCV calls of that mode and nothing else (no
boxes, no batches, no bookkeeping). Loader and baseline run alternately on the same files; ratios are
medians over the rounds. The loader as it is by default has the baseline of loaders that draw mosaics from
a buffer: they decode one image for each.
"""

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from detector.build import build_data, build_image_store, build_train_loader
from detector.config import Config, load_config
from detector.data import EpochOrder, ImageReader, Index, TrainLoader, TrainSet
from detector.errors import UserError

Images = Sequence[np.ndarray]
# Called with data, size, batch_size; returns an iterable of batches.
LoaderFactory = Callable[[str, int, int], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Mode:
    """Where the four images of a mosaic come from.

    Attributes:
        fresh: how many of the baseline's are decoded from files.
        recent: the others are drawn from this many images, those decoded last; 0: from all.
        overrides: config values of the loader, with which it does the same unless it is the default.
    """

    fresh: int
    recent: int
    overrides: tuple[str, ...]


# The bag is the default one; `make_mosaic` has its strengths written out.
RECIPE = ("bag=mosaic", "data.workers=0")
BUFFER = 64  # four batches
MODES = {
    "default": Mode(1, BUFFER, ()),
    "four fresh images": Mode(4, 1, ("data.cache=none",)),
    "tile buffer": Mode(1, BUFFER, (f"data.tile_buffer={BUFFER}",)),
    "ram cache": Mode(0, 0, ("data.cache=ram",)),
}
FILES = 512  # of the data set; all of them are decoded before the ram cache is timed


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """What is timed.

    Attributes:
        data: the data YAML.
        size: of the training images, pixels.
        batch_size: images per batch.
        images: per round and contestant.
        rounds: how many, after one to warm up.
        clock: seconds; `time.process_time` counts the time of the CPU alone, which other programs on
            the machine change less.
    """

    data: str
    size: int
    batch_size: int
    images: int
    rounds: int
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Images per second, each the median over the rounds; ratios are medians of the rounds' ratios."""

    loader: float
    baseline: float
    of_baseline: float
    other: float | None = None
    of_other: float | None = None


def benchmark_loader(
    mode: Mode, settings: BenchmarkSettings, other: LoaderFactory | None = None
) -> BenchmarkResult:
    """Times the loader, its baseline and, if given, another loader in the same rounds."""
    config, train, is_cached = _load_train_set(mode, settings)
    loader = build_train_loader(config, train, pin_memory=False)
    index = train.reader.index
    if index.pixels is not None:
        raise UserError(
            f"{index.annotations}: all images are in memory; there are no files to time"
        )
    files = [os.path.join(index.folder, name) for name in index.files]  # noqa: PTH118
    contestants = {
        "loader": _iterate_loader(loader, warm_up=is_cached),
        "baseline": _iterate_baseline(mode, files, settings.size),
    }
    if other is not None:
        batches = other(settings.data, settings.size, settings.batch_size)
        contestants["other"] = count_images(batches)
    speeds = time_rounds(contestants, settings.images, settings.rounds, settings.clock)
    median = {name: statistics.median(values) for name, values in speeds.items()}

    def ratio(to: str) -> float:
        return statistics.median(a / b for a, b in zip(speeds["loader"], speeds[to], strict=True))

    return BenchmarkResult(
        median["loader"],
        median["baseline"],
        ratio("baseline"),
        median.get("other"),
        ratio("other") if other is not None else None,
    )


def _load_train_set(mode: Mode, settings: BenchmarkSettings) -> tuple[Config, TrainSet, bool]:
    """The first `FILES` training images, augmented and cached as `mode` says; whether all are cached."""
    overrides = [f"data.size={settings.size}", f"train.batch_size={settings.batch_size}"]
    config = load_config(
        "yolov4-pacsp-mish.yaml", [*RECIPE, *mode.overrides, *overrides], data=settings.data
    )
    whole = build_data(config).train
    index = select_first_images(whole.reader.index, FILES)
    train = TrainSet(
        ImageReader(index, settings.size),
        whole.bag,
        size=whole.size,
        seed=whole.seed,
        mosaic_until=whole.mosaic_until,
        order=EpochOrder(len(index), whole.seed),
        window=whole.window,
    )
    store, _ = build_image_store(config, train.reader)
    is_cached = store is not None and not config.data.tile_buffer
    return config, train.with_store(store), is_cached


def _iterate_loader(loader: TrainLoader, *, warm_up: bool) -> Iterator[int]:
    """Yields the number of images of each batch, epoch after epoch."""
    if warm_up:
        yield sum(map(len, loader.epoch(0)))  # fills the cache
    epoch = 1
    while True:
        yield from map(len, loader.epoch(epoch))
        epoch += 1


def _iterate_baseline(mode: Mode, files: list[str], size: int) -> Iterator[int]:
    """Yields 1 per mosaic of the baseline."""
    rng = np.random.default_rng(0)
    recent = deque[np.ndarray](maxlen=mode.recent or None)
    recent.extend(make_mosaic([f], [], size, rng)[1][0] for f in files[: mode.recent or None])
    while True:
        fresh = [files[number] for number in rng.integers(0, len(files), mode.fresh)]
        others = [recent[n] for n in rng.integers(0, len(recent), 4 - mode.fresh)]
        recent.extend(make_mosaic(fresh, others, size, rng)[1])
        yield 1


def time_rounds(
    contestants: dict[str, Iterator[int]],
    images: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Images per second of each contestant in each round; iterators yield numbers of images."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, rounds):  # the first round warms up
        for name, counts in contestants.items():
            start, done = clock(), 0
            while done < images:
                done += next(counts)
            if number >= 0:
                speeds[name].append(done / (clock() - start))
    return speeds


def make_mosaic(
    files: list[str], recent: Images, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Makes a mosaic of `recent` (decoded) images and of `files` by OpenCV calls alone.

    Returns:
        The augmented image, and the decoded images of `files`.
    """
    images, decoded = [*recent], []
    for file in files:
        image: Any = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        if max(height, width) != size:
            scale = size / max(height, width)
            shape = round(width * scale), round(height * scale)
            image = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR)
        decoded.append(image)
    canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
    x, y = rng.integers(size // 2, size + size // 2, 2)
    for tile, image in enumerate(images + decoded):
        height, width = image.shape[:2]
        left = x - width if tile % 2 == 0 else x
        top = y - height if tile < 2 else y
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + width, 2 * size), min(top + height, 2 * size)
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
    zoom, (move_x, move_y) = rng.uniform(0.1, 1.9), rng.uniform(0.4, 0.6, 2) * size
    matrix = np.array([[zoom, 0, move_x - zoom * size], [0, zoom, move_y - zoom * size]])
    image = cv2.warpAffine(canvas, matrix, (size, size), borderValue=(114, 114, 114))
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    ramp, (h, s, v) = np.arange(256), 1 + rng.uniform(-1, 1, 3) * [0.015, 0.7, 0.4]
    hue = cv2.LUT(hue, (ramp * h % 180).astype(np.uint8))
    saturation = cv2.LUT(saturation, (ramp * s).clip(0, 255).astype(np.uint8))
    value = cv2.LUT(value, (ramp * v).clip(0, 255).astype(np.uint8))
    image = cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR)
    return cv2.flip(image, 1) if rng.random() < 0.5 else image, decoded


def select_first_images(index: Index, count: int) -> Index:
    """Selects the first images of an index and their boxes."""
    rows = slice(index.starts[min(count, len(index))])
    of_boxes = {
        name: getattr(index, name)[rows] for name in ("boxes_xyxy", "labels", "crowd", "clipped")
    }
    return replace(
        index,
        files=index.files[:count],
        image_ids=index.image_ids[:count],
        sizes=index.sizes[:count],
        starts=index.starts[: count + 1],
        pixels=None if index.pixels is None else index.pixels[:count],
        **of_boxes,
    )


def count_images(batches: Iterable[Any]) -> Iterator[int]:
    """Yields the number of images of each batch, iterating over `batches` again and again.

    Of a tuple or a dict, the first element holds the images.

    Raises:
        UserError: an iteration yields no batches.
    """
    while True:
        empty = True
        for batch in batches:
            empty = False
            if isinstance(batch, dict):
                batch = next(iter(batch.values()))
            yield len(batch[0]) if isinstance(batch, (tuple, list)) else len(batch)
        if empty:
            raise UserError(
                "--vs: the iterable yields no batches; it must allow more than one iteration"
            )
