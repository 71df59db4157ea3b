"""Evaluate weights: COCO's twelve numbers on the validation split."""

from pathlib import Path

from detector import cli  # first: how threads wait, before torch is loaded
from detector.build import build_evaluator, build_hardware, build_val
from detector.darknet import DarknetOptions
from detector.pretrained import load_model
from detector.report import evaluate_model


def main() -> None:
    parser = cli.parser(
        __doc__ or "", "python tools/val.py --weights runs/yolov4-pacsp-n-mish/best.pt"
    )
    parser.add_argument("--weights", metavar="FILE", required=True, help="a .pt or a .weights")
    parser.add_argument("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    parser.add_argument("--data", metavar="YAML", help="default: what the run was trained on")
    parser.add_argument("--out", metavar="JPG", help="picture; default val.jpg beside the weights")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.size=736")
    parser.add_argument("--protocol", help="letterbox, pytorch_yolov4 or darknet: eval.protocol")
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()

    if args.protocol:
        args.overrides.append(f"eval.protocol={args.protocol}")
    weights = Path(args.weights)
    loaded = load_model(
        weights,
        args.overrides,
        dataset=args.data,
        cfg=args.cfg,
        options=DarknetOptions.of(args),
    )
    for line in loaded.notes:
        print(line)
    hardware = build_hardware(loaded.config)
    val = build_val(loaded.config)
    for line in val.reader.index.notes:
        print(line)
    cli.tell_left_out([str(f) for f in val.reader.index.findings if f.left_out])
    evaluator = build_evaluator(loaded.config, val, hardware)
    picture = Path(args.out) if args.out else weights.with_name("val.jpg")
    print(evaluate_model(loaded, str(weights), evaluator, val, hardware, picture))


if __name__ == "__main__":
    cli.run(main)
