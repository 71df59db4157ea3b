"""Time an image through a network: PyTorch in several ways, ONNX Runtime, OpenVINO, other ONNX files."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from detector.api.inference_benchmark import (
    RUNTIMES,
    VARIANTS,
    Variant,
    find_obstacle,
    format_timings,
    make_other,
    make_variants,
    measure_variants,
)
from detector.api.model_export import ExportRequest, describe_export
from detector.build import build_hardware, build_placement, build_postprocess
from detector.commands import cli
from detector.data import UnreadableImage, list_images, read_image
from detector.device import Hardware
from detector.errors import UserError
from detector.export import is_exported_file
from detector.weights.load import LoadedModel, load_model, make_random_model


def main() -> None:
    args = parse_args()
    loaded = load_network(args)
    hardware = build_hardware(loaded.config)
    placement = build_placement(loaded.config)
    images = read_images(args)
    names = choose_variants(args.variants, hardware.device)
    batches = tuple(dict.fromkeys(args.batch))
    with tempfile.TemporaryDirectory() as folder:
        variants = make_variants(
            names,
            loaded.model.eval(),
            hardware,
            describe_export(loaded, ExportRequest()),
            batches=batches,
            folder=Path(folder),
        )
        variants += open_others(args, loaded.config.data.size, hardware, batches)
        print(f"{args.weights or args.cfg}, {loaded.config.data.size} px, {hardware}")
        postprocess = build_postprocess(loaded.config.eval, args.conf)
        with tqdm(disable=None, leave=False, bar_format="{desc}") as bar:
            timings = measure_variants(
                variants,
                images,
                placement,
                postprocess,
                rounds=args.rounds,
                report=bar.set_description_str,
            )
    print(format_timings(timings))
    if args.json:
        cli.write_json(Path(args.json), [each.as_json() for each in timings])


def load_network(args: argparse.Namespace) -> LoadedModel:
    """The weights, or a network with random ones; in fp32."""
    words = [*args.overrides, "train.precision=fp32", "train.channels_last=false"]
    words += [f"data.size={args.size}"] if args.size else []
    words += [f"train.threads={args.threads}"] if args.threads else []
    if args.weights is None:
        return make_random_model(args.cfg, words)
    options = cli.read_darknet_options(args)
    return load_model(Path(args.weights), words, cfg=args.cfg, options=options)


def read_images(args: argparse.Namespace) -> list[np.ndarray]:
    """The images of --images; or one of noise, 640 x 480 px."""
    if args.images:
        try:
            return [read_image(str(path)) for path in list_images(args.images)]
        except UnreadableImage as error:
            raise UserError(str(error)) from None
    return [np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)]


def choose_variants(wanted: list[str] | None, device: torch.device) -> list[str]:
    """The variants that were asked for; by default those that run here, and a line for the others.

    Raises:
        UserError: one that was asked for needs a package that is not installed.
    """
    names = []
    for name in wanted or VARIANTS:
        obstacle = find_obstacle(name, device)
        if obstacle is None or (wanted and name not in RUNTIMES):
            names.append(name)
        elif wanted:
            raise UserError(f"--variants {name}: {obstacle}")
        else:
            print(f"skipped: {name}: {obstacle}")
    return names


def open_others(
    args: argparse.Namespace, size: int, hardware: Hardware, batches: tuple[int, ...]
) -> list[Variant]:
    """The files of --vs."""
    return [make_other(Path(path), size, hardware, batches) for path in args.vs]


def parse_args() -> argparse.Namespace:
    """Parses the options.

    Raises:
        UserError: options that do not go together, or values out of range.
    """
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/bench_infer.py --cfg yolov4-pacsp-s-mish --size 640 --threads 2\n"
        "  python tools/bench_infer.py --weights best.pt --images photos/ --vs other.onnx",
    )
    add = parser.add_argument
    add("--weights", metavar="FILE", help="a .pt or a .weights")
    add(
        "--cfg", help="network with random weights, or of a .weights: a name in configs/, or a .cfg"
    )
    add("--size", type=int, help="image size in pixels: data.size")
    add("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes (default 1 8)")
    add("--variants", nargs="+", choices=VARIANTS, help="default: all that this machine runs")
    add(
        "--vs",
        nargs="+",
        default=[],
        metavar="ONNX",
        help="ONNX files of any project, network only",
    )
    add("--images", nargs="+", metavar="IMAGE", help="files and folders; default: noise, 640 x 480")
    add("--conf", type=float, default=0.25, help="confidence threshold (default 0.25)")
    add("--rounds", type=int, default=20, help="timed runs of each variant (default 20)")
    add("--threads", type=int, help="threads of every variant: train.threads")
    add("--json", metavar="FILE", help="write the medians to this file")
    add("overrides", nargs="*", metavar="key=value", help="e.g. eval.protocol=rectangular")
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()
    if args.weights is None and args.cfg is None:
        raise UserError("give --weights, or --cfg for random ones")
    if args.weights is not None and is_exported_file(Path(args.weights)):
        raise UserError(
            f"--weights measures PyTorch weights; give {args.weights} with --vs, and --cfg"
        )
    if min(args.batch) < 1 or args.rounds < 1:
        raise UserError("--batch and --rounds: expected at least 1")
    if not 0 <= args.conf <= 1:
        raise UserError(f"--conf {args.conf}: expected a score between 0 and 1")
    return args


if __name__ == "__main__":
    cli.run(main)
