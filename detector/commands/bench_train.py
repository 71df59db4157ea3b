"""Time a training step, phase by phase, beside the same step computed otherwise.

The variants take turns in one process, one step each:

  ours     the config as it is
  eager    the config without CUDA graphs (on a CPU the same)
  torch    eager, with torch's convolution, BatchNorm and activation in place of ours; torch-bf16: in
           bf16
  plain    besides fp32, NCHW, and Mish as x * tanh(softplus(x))
  nchw, fp32, bf16, fp16, checkpointing, compile   the config with that setting

"convolutions" is the time of the network's convolutions alone, forward and backward, in the same
precision and layout: the floor under the step. On a GPU "busy" is the fraction of the step in which it
computes; the phases come from steps that wait for it after each phase, the total from steps that do not.

--vs module:function adds another toolkit's step to the same rounds: the function is called with (data:
str, size: int, batch_size: int) and returns a function that trains on one batch per call. --timm
NETWORK adds the step of timm's training script, for a classifier: its network of this name, its
optimizer, EMA and scheduler, in the precision of the first variant and both layouts (the script's default
is NCHW); its batches are in memory already.
"""

import argparse
import functools
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from detector.api.step_benchmark import (
    PHASES,
    VARIANTS,
    StepMaker,
    StepSettings,
    StepTimes,
    benchmark_steps,
)
from detector.api.timm_step import TimmStep
from detector.commands import cli
from detector.commands.bench_mish import describe_cpu
from detector.errors import UserError

# of the GPU table: the published training size, as many images as fit small GPUs
GPU_RUNS = (("yolov4-pacsp-s-mish.yaml", 32), ("yolov4-pacsp-mish.yaml", 16))
GPU_SIZE = 640
GPU_VARIANTS = ("ours", "eager", "torch", "bf16", "torch-bf16")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/bench_train.py --cfg yolov4-pacsp-s-mish.yaml --data digits.yaml train.threads=1",
    )
    parser.add_argument("--cfg", metavar="YAML", default="yolov4-pacsp-s-mish.yaml")
    parser.add_argument("--data", metavar="YAML", help="default: the config's")
    parser.add_argument("--size", type=int, default=320, help="of the images, px (default 320)")
    parser.add_argument("--batch", type=int, default=8, help="images per step (default 8)")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=["ours", "torch", "plain"],
        help="the first one is what the others are compared with (default ours torch plain)",
    )
    parser.add_argument("--steps", type=int, default=10, help="of each variant (default 10)")
    parser.add_argument(
        "--memory", action="store_true", help="what is kept for the backward pass, by operator"
    )
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--vs", metavar="MODULE:FUNCTION", help="also time this toolkit's step")
    others.add_argument("--timm", metavar="NETWORK", help="also time timm's step, for a classifier")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="the time of the CPU in place of that of the clock, where other programs run too",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers to a file")
    parser.add_argument(
        "--gpu-table",
        action="store_true",
        help=f"the table of a GPU: {', '.join(f'{cfg} at batch {n}' for cfg, n in GPU_RUNS)}, "
        f"{GPU_SIZE} px, {', '.join(GPU_VARIANTS)}",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config settings")
    return parser


def main() -> None:
    """Runs the command."""
    args = make_parser().parse_intermixed_args()
    if args.gpu_table:
        if not torch.cuda.is_available():
            raise UserError("--gpu-table: torch finds no NVIDIA GPU; leave it out to time this CPU")
        runs = [(cfg, batch, GPU_SIZE, GPU_VARIANTS) for cfg, batch in GPU_RUNS]
        args.memory = True
    else:
        runs = [(args.cfg, args.batch, args.size, tuple(args.variants))]
    results = []
    print(f"{describe_cpu()}, torch {torch.__version__}")
    for cfg, batch, size, variants in runs:
        clock = time.process_time if args.cpu_time else time.perf_counter
        settings = StepSettings(cfg, args.data, tuple(args.overrides), size, batch, clock)
        times, others = benchmark_steps(
            variants,
            settings,
            rounds=args.steps,
            others=choose_others(args, settings),
            memory=args.memory,
            progress=show_progress,
        )
        print(f"\n{cfg}, {size} px, batch {batch}; ms per step, medians of {args.steps}")
        print("\n".join(format_table(times, batch, others)))
        results.append(
            {
                "cfg": cfg,
                "size": size,
                "batch": batch,
                "variants": {name: each.summary() for name, each in times.items()},
                "others_ms": {name: statistics.median(each) for name, each in others.items()},
            }
        )
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def show_progress(rounds: Sequence[int]) -> Iterator[int]:
    """A progress bar, which vanishes."""
    return iter(tqdm(rounds, desc="rounds", leave=False))


def choose_others(args: argparse.Namespace, settings: StepSettings) -> dict[str, StepMaker]:
    """What makes the steps of --vs or --timm, by name.

    Raises:
        UserError: --vs names no function.
    """
    if args.timm:
        layouts = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
        return {
            f"timm {args.timm}, {name}": functools.partial(TimmStep, args.timm, layout)
            for name, layout in layouts.items()
        }
    if args.vs:
        step = import_step(args.vs, settings)
        return {args.vs: lambda _: step}
    return {}


def import_step(text: str, settings: StepSettings) -> Callable[[], Any]:
    """The step that `module:function` makes for the same data, size and batch.

    Raises:
        UserError: there is no such function.
    """
    module, _, name = text.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--vs {text}: expected module:function: {error}") from None
    return make(settings.data, settings.size, settings.batch_size)


def format_table(
    times: dict[str, StepTimes], batch: int, others: Mapping[str, Sequence[float]]
) -> list[str]:
    """The lines of the table: a row per variant, then the memory."""
    first = next(iter(times.values())).total
    columns = ["variant", *PHASES, "total", "images/s", "vs first", "convolutions", "busy"]
    rows = [columns]
    for name, each in times.items():
        total = statistics.median(each.total)
        rows.append(
            [
                f"{name} ({each.hardware.rpartition(', ')[2]})",
                *(f"{each.median(phase):.1f}" for phase in PHASES),
                f"{total:.1f}",
                f"{1e3 * batch / total:.1f}",
                f"{_ratio(each.total, first):.2f}",
                f"{statistics.median(each.convolutions):.1f}",
                "" if each.busy is None else f"{each.busy:.0%}",
            ]
        )
    for name, each in others.items():
        total = statistics.median(each)
        blank = [""] * len(PHASES)
        cells = f"{total:.1f}", f"{1e3 * batch / total:.1f}", f"{_ratio(each, first):.2f}"
        rows.append([name, *blank, *cells, "", ""])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in pairs)
        for pairs in ([*enumerate(zip(row, widths, strict=True))] for row in rows)
    ]
    return [*(line.rstrip() for line in lines), *_format_memory(times)]


def _ratio(times: Sequence[float], first: Sequence[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(times, first, strict=True))


def _format_memory(times: dict[str, StepTimes]) -> list[str]:
    """What each variant keeps for the backward pass, and its peak on a GPU."""
    lines = []
    for name, each in times.items():
        if not each.kept:
            continue
        peak = f", peak {each.peak_memory / 1e9:.2f} GB" if each.peak_memory else ""
        kinds = [f"{kind} {size / 1e6:.0f}" for kind, size in each.kept.items() if size >= 1e6]
        total = sum(each.kept.values()) / 1e6
        lines.append(f"{name}: {total:.0f} MB kept for backward{peak}: {', '.join(kinds)}")
    return lines


if __name__ == "__main__":
    cli.run(main)
