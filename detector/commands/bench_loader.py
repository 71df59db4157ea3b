"""Time the training loader against the OpenCV calls that it cannot avoid, in one process.

Each mode has a baseline: one function that makes the OpenCV calls of that mode and nothing else (no
boxes, no batches, no bookkeeping). Loader and baseline run alternately on the same files, with one OpenCV
thread; the ratio is the median over the rounds. The default keeps decoded images if they fit the memory
(data.cache: auto); its baseline decodes one image per mosaic and draws three from the last 64. Any other
iterable of batches can be timed in the same rounds: --vs module:function, called with (data: str, size:
int, batch_size: int); where a batch is a tuple or a dict, its images are the first element.

Without --data, 640x480 px JPEGs are made from the embedded data set.

With --cfg it measures instead whether the loader is the bottleneck of training this network: it trains
for some batches, writes nothing, and prints the throughput of loader and network.
"""

import importlib
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch

from detector.api.benchmark_images import make_benchmark_images
from detector.api.bottleneck import measure_bottleneck
from detector.api.loader_benchmark import (
    MODES,
    BenchmarkSettings,
    LoaderFactory,
    benchmark_loader,
)
from detector.commands import cli
from detector.config import load_config
from detector.device import keep_freed_memory
from detector.errors import UserError


def import_function(text: str) -> LoaderFactory:
    """Imports the function that `module:function` names.

    Raises:
        UserError: there is no such function.
    """
    module, colon, name = text.partition(":")
    if not colon:
        raise UserError(f"--vs {text}: expected module:function")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--vs {text}: {error}") from None


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/bench_loader.py --data coco.yaml --sizes 320 640"
    )
    parser.add_argument(
        "--data", metavar="YAML", help="a data set of JPEGs; default: a temporary one"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[320, 640], help="image sizes, px (default 320 640)"
    )
    parser.add_argument("--batch", type=int, default=16, help="images per batch (default 16)")
    parser.add_argument("--images", type=int, default=64, help="images per round (default 64)")
    parser.add_argument("--turns", type=int, default=15, help="number of rounds (default 15)")
    parser.add_argument(
        "--vs", metavar="MODULE:FUNCTION", help="also time this iterable of batches"
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="the time of the CPU in place of that of the clock, where other programs run too",
    )
    parser.add_argument("--cfg", metavar="YAML", help="train this network and print its bottleneck")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="with --cfg, e.g. data.workers=8"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    args = parser.parse_intermixed_args()
    if args.cfg is not None and args.json is not None:
        parser.error("--json does not go with --cfg")
    if args.cfg is not None:
        for line in measure_bottleneck(load_config(args.cfg, args.overrides, data=args.data)):
            print(line)
        return
    if args.overrides:
        parser.error(f"{args.overrides[0]}: key=value needs --cfg; each mode has its own settings")
    other = import_function(args.vs) if args.vs else None

    clock = time.process_time if args.cpu_time else time.perf_counter
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_freed_memory()  # as training on a CPU does; for all contestants
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or str(make_benchmark_images(Path(folder), 256))
        print(f"OpenCV {cv2.__version__}, {cv2.getNumThreads()} thread, one process; in images/s")
        figures: list[dict[str, Any]] = []
        for name, mode in MODES.items():
            for size in args.sizes:
                counts = args.batch, args.images, args.turns
                settings = BenchmarkSettings(data, size, *counts, clock)
                result = benchmark_loader(mode, settings, other)
                figures.append({"mode": name, "size": size, **asdict(result)})
                line = (
                    f"{name}, {size} px: loader {result.loader:.0f}, bare OpenCV "
                    f"{result.baseline:.0f}, ratio {result.of_baseline:.0%}"
                )
                if result.other is not None:
                    line += f"; {args.vs} {result.other:.0f}, ratio {result.of_other:.2f}"
                print(line)
    if args.json is not None:
        cli.write_json(Path(args.json), figures)


if __name__ == "__main__":
    cli.run(main)
