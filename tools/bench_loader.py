"""Time the loader against the bare OpenCV calls that it cannot do without, in one process.

Each mode has a floor: one flat function that makes the OpenCV calls of that mode and nothing else (no
boxes, no batches, no bookkeeping). Loader and floor take turns on the same files, with one OpenCV
thread; the ratio is the median over the turns. Whatever else yields batches can be timed in the same
turns: --vs module:function, called with (data: str, size: int, batch_size: int) to give an iterable of
batches; of a tuple or a dict, the first element is what is counted.

Without --data, files of 640x480 px are put together from the embedded data set.
"""

import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from detector import cli  # first: how threads wait, before torch is loaded
from detector.allocator import keep_freed_memory
from detector.build import build_data, build_train_loader
from detector.config import load_config
from detector.data import describe, read_split
from detector.errors import UserError


def fresh_floor(files: list[str], size: int, rng: np.random.Generator) -> np.ndarray:
    """Four fresh images a mosaic: the bare calls. BGR [size, size, 3]."""
    canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
    x, y = rng.integers(size // 2, size + size // 2, 2)
    for tile, number in enumerate(rng.integers(0, len(files), 4)):
        image = cv2.imdecode(np.fromfile(files[number], np.uint8), cv2.IMREAD_COLOR)
        assert image is not None, files[number]
        height, width = image.shape[:2]
        if max(height, width) != size:
            scale = size / max(height, width)
            height, width = round(height * scale), round(width * scale)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        left = x - width if tile % 2 == 0 else x
        top = y - height if tile < 2 else y
        x1, y1, x2, y2 = (
            max(left, 0),
            max(top, 0),
            min(left + width, 2 * size),
            min(top + height, 2 * size),
        )
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
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


@dataclass(frozen=True, slots=True)
class Mode:
    """How images come to a mosaic.

    Attributes:
        floor: the bare calls for one sample: files, size and random numbers -> image.
        words: of the configuration, that make the loader do the same.
    """

    floor: Callable[[list[str], int, np.random.Generator], np.ndarray]
    words: tuple[str, ...]


# the bag is the default one, spelled out: a floor is written for these strengths
RECIPE = ("bag=mosaic", "data.workers=0")
MODES = {"four fresh images": Mode(fresh_floor, ())}


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
    loader = build_train_loader(config, train, pin_memory=False)
    index = train.reader.index
    files = [str(index.folder / str(name)) for name in index.files]

    def bare() -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            mode.floor(files, size, rng)
            yield 1

    def ours() -> Iterator[int]:
        epoch = 0
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
    args = parser.parse_args()
    other = named_function(args.vs) if args.vs else None

    cv2.setNumThreads(1)
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
