"""Export a trained model to ONNX, torch.export or OpenVINO, and prove that it finds the same boxes."""

import argparse
from pathlib import Path

from detector.api.export_check import TOLERANCES
from detector.api.model_export import ExportRequest, export_model
from detector.commands import cli
from detector.errors import UserError
from detector.export import SUFFIXES

KEYS = {
    "size": "data.size",
    "conf": "eval.conf",
    "nms_iou": "eval.nms_iou",
    "max_detections": "eval.max_detections",
}


def main() -> None:
    args = make_parser().parse_intermixed_args()
    weights = Path(args.weights)
    weights = weights / "best.pt" if weights.is_dir() else weights
    out = Path(args.out) if args.out else weights.with_suffix(SUFFIXES[args.format])
    check_args(args, out)
    overrides = list(args.overrides)
    for name, key in KEYS.items():
        value = getattr(args, name)
        overrides += [] if value is None else [f"{key}={value}"]
    request = ExportRequest(
        format=args.format,
        precision=args.precision,
        mish=args.mish,
        nms=args.nms,
        fixed_batch=args.fixed,
        data=args.data,
        images=args.images or (),
        calibration=args.calibration,
        tolerance=args.tolerance,
    )
    options = cli.read_darknet_options(args)
    report = export_model(weights, out, request, overrides, cfg=args.cfg, options=options)
    print("\n".join(report.lines))
    if args.json:
        cli.write_json(Path(args.json), report.as_json())


def check_args(args: argparse.Namespace, out: Path) -> None:
    """Checks the options.

    Raises:
        UserError: a value out of range, or a file name of another format.
    """
    if out.suffix.lower() != SUFFIXES[args.format]:
        raise UserError(f"--out {out}: a file of {args.format} ends in {SUFFIXES[args.format]}")
    for option, value in (("--fixed", args.fixed), ("--calibration", args.calibration)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: expected at least 1 image")
    if args.tolerance is not None and not 0 < args.tolerance <= 1:
        raise UserError(f"--tolerance {args.tolerance}: expected a score difference in (0, 1]")


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/export.py --weights runs/yolov4-pacsp-n-mish/best.pt --nms\n"
        "  python tools/export.py --weights best.pt --format openvino --precision int8 --data my.yaml",
    )
    add = parser.add_argument
    add("--weights", metavar="FILE", required=True, help="a .pt, a .weights or a run folder")
    add("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    add("--format", choices=tuple(SUFFIXES), default="onnx", help="default onnx")
    add("--out", metavar="FILE", help="default: beside the weights, with the format's suffix")
    add("overrides", nargs="*", metavar="key=value", help="e.g. eval.protocol=rectangular")
    graph = parser.add_argument_group("what the file computes")
    graph.add_argument(
        "--precision", choices=tuple(TOLERANCES), default="fp32", help="default fp32"
    )
    graph.add_argument(
        "--mish",
        choices=("operator", "composed"),
        default="operator",
        help="composed: of softplus, tanh and a product, for runtimes without the operator (TensorRT)",
    )
    graph.add_argument(
        "--fixed",
        metavar="BATCH",
        nargs="?",
        type=int,
        const=1,
        help="fixed batch (default 1) and size, for runtimes without dynamic shapes",
    )
    graph.add_argument("--size", type=int, help="image size in pixels: data.size")
    graph.add_argument("--nms", action="store_true", help="non-maximum suppression inside the file")
    graph.add_argument("--conf", type=float, help="confidence threshold: eval.conf")
    graph.add_argument("--nms-iou", type=float, help="of the suppression: eval.nms_iou")
    graph.add_argument("--max-detections", type=int, help="per image: eval.max_detections")
    check = parser.add_argument_group("comparison with PyTorch")
    check.add_argument("--data", metavar="YAML", help="compare the AP on its validation split, too")
    check.add_argument(
        "--images", nargs="+", metavar="IMAGE", help="to compare on; default: of the data set"
    )
    check.add_argument(
        "--tolerance", type=float, help="largest difference of a score (default 1e-4; fp16 2e-2)"
    )
    check.add_argument(
        "--calibration",
        type=int,
        default=64,
        metavar="N",
        help="training images for int8 (default 64)",
    )
    check.add_argument("--json", metavar="FILE", help="write the comparison to this file")
    cli.add_darknet_options(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
