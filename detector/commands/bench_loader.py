"""Time the loader against the bare OpenCV calls that it cannot do without, in one process.

Each mode has a floor: one flat function that makes the OpenCV calls of that mode and nothing else (no
boxes, no batches, no bookkeeping). Loader and floor take turns on the same files, with one OpenCV
thread; the ratio is the median over the turns. Whatever else yields batches can be timed in the same
turns: --vs module:function, called with (data: str, size: int, batch_size: int) to give an iterable of
batches; of a tuple or a dict, the first element is what is counted.

Without --data, files of 640x480 px are put together from the embedded data set.

With --cfg it asks another question: does the training of this network wait for its images? It trains
for some batches, writes nothing, and prints what both can do.
"""

import contextlib
import importlib
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from detector.build import (
    build_data,
    build_evaluator,
    build_hardware,
    build_image_store,
    build_meter,
    build_train_loader,
    build_trainer,
    resolve_anchors,
    resolve_batch_size,
)
from detector.commands import cli
from detector.config import Config, load_config
from detector.data import EpochOrder, ImageReader, Index, describe, read_split
from detector.device import keep_freed_memory
from detector.engine import Observer, ProcessGroup, Stopped, ThroughputMonitor, Trainer
from detector.errors import UserError

Images = Sequence[np.ndarray]


def floor(files: list[str], recent: Images, size: int, rng: np.random.Generator) -> Any:
    """A mosaic of decoded images and of files, by bare calls; and the images of those files."""
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


@dataclass(frozen=True, slots=True)
class Mode:
    """How images come to a mosaic.

    Attributes:
        fresh: of its four, how many are decoded.
        kept: of the newest decoded images, how many the others are drawn from; 0 is all of them.
        words: of the configuration, that make the loader do the same.
    """

    fresh: int
    kept: int
    words: tuple[str, ...]


# the bag is the default one, spelled out: the floor is written for these strengths
RECIPE = ("bag=mosaic", "data.workers=0")
BUFFER = 64  # four batches
MODES = {
    "four fresh images": Mode(4, 1, ()),
    "tile buffer": Mode(1, BUFFER, (f"data.tile_buffer={BUFFER}",)),
    "ram cache": Mode(0, 0, ("data.cache=ram",)),
}
FILES = 512  # of the data set; all of them are decoded before the ram cache is timed


@dataclass(frozen=True, slots=True)
class Result:
    """Images a second, each the median over the turns; the ratios are medians of the turns' ratios."""

    ours: float
    floor: float
    of_floor: float
    other: float | None = None
    of_other: float | None = None


def turns(contestants: dict[str, Iterator[int]], images: int, count: int) -> dict[str, list[float]]:
    """Images a second of each contestant in each turn; an iterator yields how many images it made."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-1, count):  # the first turn warms up
        for name, made in contestants.items():
            start, done = time.perf_counter(), 0
            while done < images:
                done += next(made)
            if turn >= 0:
                speeds[name].append(done / (time.perf_counter() - start))
    return speeds


def measure(
    mode: Mode, data: str, size: int, batch_size: int, images: int, count: int, other: Any
) -> Result:
    """One line of the table."""
    words = [*RECIPE, *mode.words, f"data.size={size}", f"train.batch_size={batch_size}"]
    config = load_config("yolov4-pacsp-mish.yaml", words, data=data)
    train = build_data(config).train
    index = first_images(train.reader.index, FILES)
    train.reader, train.order = ImageReader(index, size), EpochOrder(len(index), train.seed)
    build_image_store(config, train)
    loader = build_train_loader(config, train, pin_memory=False)
    files = [os.path.join(index.folder, name) for name in index.files]  # noqa: PTH118

    def bare() -> Iterator[int]:
        rng = np.random.default_rng(0)
        recent = deque[np.ndarray](maxlen=mode.kept or None)
        recent.extend(floor([f], [], size, rng)[1][0] for f in files[: mode.kept or None])
        while True:
            fresh = [files[number] for number in rng.integers(0, len(files), mode.fresh)]
            others = [recent[n] for n in rng.integers(0, len(recent), 4 - mode.fresh)]
            recent.extend(floor(fresh, others, size, rng)[1])
            yield 1

    def ours() -> Iterator[int]:
        if config.data.cache != "none":
            yield sum(map(len, loader.epoch(0)))  # every image is there from here on
        epoch = 1
        while True:
            yield from map(len, loader.epoch(epoch))
            epoch += 1

    contestants = {"ours": ours(), "floor": bare()}
    if other is not None:
        contestants["other"] = repeated(other(data, size, batch_size))
    speeds = turns(contestants, images, count)
    middle = {name: statistics.median(values) for name, values in speeds.items()}

    def ratio(to: str) -> float | None:
        if to not in speeds:
            return None
        return statistics.median(a / b for a, b in zip(speeds["ours"], speeds[to], strict=True))

    return Result(
        middle["ours"], middle["floor"], ratio("floor") or 0.0, middle.get("other"), ratio("other")
    )


def first_images(index: Index, count: int) -> Index:
    """The first images of an index and their boxes."""
    rows = slice(index.starts[min(count, len(index))])
    of_boxes = {
        name: getattr(index, name)[rows] for name in ("boxes_xyxy", "labels", "crowd", "cut")
    }
    return replace(
        index,
        files=index.files[:count],
        image_ids=index.image_ids[:count],
        sizes=index.sizes[:count],
        starts=index.starts[: count + 1],
        **of_boxes,
    )


def train_for_a_while(config: Config) -> None:
    """Trains until the meter has told, and prints its line; writes nothing.

    Raises:
        UserError: nothing to train on.
    """
    hardware, processes = build_hardware(config), ProcessGroup()
    data = build_data(config)
    config, _ = resolve_anchors(config, data.train.reader.index)
    config, _ = resolve_batch_size(config, len(data.names), hardware, processes)
    print(f"{config.model.arch}, {config.data.dataset}, {hardware}")
    for line in build_image_store(config, data.train):
        print(line)
    evaluator = build_evaluator(config, data.val, hardware)
    trainer = build_trainer(config, data, evaluator, hardware)
    meter = build_meter(config)
    trainer.observers = [meter, Told(meter)]
    with contextlib.suppress(Stopped):
        trainer.run()


class Told(Observer):
    """Ends the training once the meter has told."""

    def __init__(self, meter: ThroughputMonitor) -> None:
        self.meter = meter

    def on_step(self, trainer: Trainer) -> None:
        """Looks."""
        if self.meter.told:
            trainer.stop("the meter has told")

    def on_trained(self, trainer: Trainer) -> None:
        """In place of an evaluation."""
        trainer.stop("an epoch is over")


def repeated(batches: Iterable[Any]) -> Iterator[int]:
    """How many images each batch of someone else's iterable has, over and over."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            if isinstance(batch, dict):
                batch = next(iter(batch.values()))
            yield len(batch[0]) if isinstance(batch, (tuple, list)) else len(batch)
        if empty:
            raise UserError("--vs: the iterable gives no batches, or none the second time")


def named_function(text: str) -> Any:
    """The function that `module:function` names.

    Raises:
        UserError: there is none.
    """
    module, colon, name = text.partition(":")
    if not colon:
        raise UserError(f"--vs {text}: expected module:function")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--vs {text}: {error}") from None


def make_images(folder: Path, count: int) -> Path:
    """A data set of 640x480 jpegs, each of four images of the embedded one; returns its YAML."""
    config, root = describe("digits.yaml")
    index = read_split(config, root, "train")
    names = [{"id": label + 1, "name": name} for label, name in enumerate(index.names)]
    tree: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": names}
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / f"{split}2017").mkdir()
    for number in tqdm(range(count), desc="making images", disable=None, leave=False):
        parts = [4 * number + place for place in range(4)]
        read = [cv2.imread(str(index.folder / str(index.files[p % len(index)]))) for p in parts]
        rows = [
            np.hstack([image for image in read[i : i + 2] if image is not None]) for i in (0, 2)
        ]
        name = f"{number:04d}.jpg"
        picture, quality = np.vstack(rows)[80:560], [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(folder / "train2017" / name), picture, quality)
        tree["images"].append({"id": number + 1, "file_name": name, "width": 640, "height": 480})
        for place, part in enumerate(parts):
            rows_of = slice(index.starts[part % len(index)], index.starts[part % len(index) + 1])
            for (x1, y1, x2, y2), label in zip(
                index.boxes_xyxy[rows_of].tolist(), index.labels[rows_of].tolist(), strict=True
            ):
                box = [x1 + place % 2 * 320, y1 + place // 2 * 320 - 80, x2 - x1, y2 - y1]
                if 0 <= box[1] <= 480 - box[3]:
                    annotation = {"id": len(tree["annotations"]) + 1, "image_id": number + 1}
                    tree["annotations"].append(
                        {**annotation, "category_id": label + 1, "bbox": box, "iscrowd": 0}
                    )
    for split in ("train", "val"):
        images = tree if split == "train" else {**tree, "images": [], "annotations": []}
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(images), encoding="utf-8")
    yaml = folder / "data.yaml"
    yaml.write_text("format: coco\nroot: .\n", encoding="utf-8")
    return yaml


def main() -> None:
    parser = cli.parser(
        __doc__ or "", "python tools/bench_loader.py --data coco.yaml --sizes 320 640"
    )
    parser.add_argument("--data", metavar="YAML", help="a data set of jpegs; default: made for it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640], help="px (320 640)")
    parser.add_argument("--batch", type=int, default=16, help="images a batch (default 16)")
    parser.add_argument("--images", type=int, default=64, help="a turn (default 64)")
    parser.add_argument("--turns", type=int, default=15, help="default 15")
    parser.add_argument("--vs", metavar="MODULE:FUNCTION", help="time another iterable of batches")
    parser.add_argument("--cfg", metavar="YAML", help="train this, and say what it waits for")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="with --cfg, e.g. data.workers=8"
    )
    args = parser.parse_intermixed_args()
    if args.cfg is not None:
        train_for_a_while(load_config(args.cfg, args.overrides, data=args.data))
        return
    if args.overrides:
        parser.error(f"{args.overrides[0]}: settings go with --cfg; the modes have theirs")
    other = named_function(args.vs) if args.vs else None

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_freed_memory()  # for all contestants, as training on a CPU does
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or str(make_images(Path(folder), 256))
        print(
            f"OpenCV {cv2.__version__}, {cv2.getNumThreads()} thread; images a second, one process"
        )
        for name, mode in MODES.items():
            for size in args.sizes:
                result = measure(mode, data, size, args.batch, args.images, args.turns, other)
                line = (
                    f"{name}, {size} px: loader {result.ours:.0f}, floor {result.floor:.0f}, "
                    f"{result.of_floor:.0%} of the floor"
                )
                if result.other is not None:
                    line += f"; {args.vs} {result.other:.0f}, {result.of_other:.2f} times as fast"
                print(line)


if __name__ == "__main__":
    cli.run(main)
