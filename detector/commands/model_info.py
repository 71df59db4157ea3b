"""Print the cost of a network: parameters, GFLOPs, shapes and strides, stage by stage."""

from pathlib import Path

from detector.build import build_network, default_num_classes
from detector.commands import cli
from detector.errors import UserError
from detector.models import Classifier, format_stages, measure_stages, stages_as_json
from detector.weights.darknet import read_config


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/model_info.py --cfg yolov4-pacsp-mish.yaml --size 736"
    )
    parser.add_argument("--cfg", required=True, help="a path, a name in configs/, or a .cfg")
    parser.add_argument("--size", type=int, nargs="+", help="one size, or height and width; pixels")
    parser.add_argument(
        "--classes", type=int, help="default: 80; 1000 for a classifier; as in a .cfg"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. model.activation=relu"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers to this file")
    args = parser.parse_intermixed_args()

    config = read_config(args.cfg, args.overrides)
    size = args.size or [config.data.size]
    height, width = size[0], size[-1]
    if len(size) > 2 or min(size) < 32 or height % 32 or width % 32:
        raise UserError(f"--size {' '.join(map(str, size))}: expected one or two multiples of 32")
    classes = args.classes or default_num_classes(config.model)
    model = build_network(config.model, classes)
    print(f"{args.cfg}: {config.model.arch}, {classes} classes, {height} x {width} pixels")
    print("GFLOPs: 2 x multiply-adds of convolutions and linear layers, one image")
    if not isinstance(model, Classifier):
        for stride, anchors in zip(model.strides, model.anchors.tolist(), strict=True):
            print(f"stride {stride:>2}: anchors {'  '.join(f'{w:g},{h:g}' for w, h in anchors)}")
        print(f"boxes: {model.decoder}")
    stages = measure_stages(model.to("meta"), height, width)
    print(format_stages(stages, height))
    if args.json is not None:
        about = {"arch": config.model.arch, "classes": classes, "height": height, "width": width}
        cli.write_json(Path(args.json), {**about, "stages": stages_as_json(stages)})


if __name__ == "__main__":
    cli.run(main)
