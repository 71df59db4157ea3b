"""Convert a darknet .weights file to a checkpoint of this toolkit (.pt), or back."""

from pathlib import Path

from detector.command_names import format_command
from detector.commands import cli
from detector.errors import UserError
from detector.weights.darknet import is_darknet_file, read_config, read_darknet
from detector.weights.load import export_darknet, read_weights, save_weights


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/convert_weights.py yolov4-pacsp-mish.weights --cfg yolov4-pacsp-mish.yaml "
        "-o weights/yolov4-pacsp-mish.pt\n"
        "  python tools/convert_weights.py runs/mine/best.pt -o mine.weights",
    )
    parser.add_argument("file", metavar="FILE", help="a .weights or a .pt")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="a .pt or a .weights")
    parser.add_argument("--cfg", help="network of the .weights: a name in configs/, or a .cfg")
    cli.add_darknet_options(parser)
    args = parser.parse_args()

    source, target = Path(args.file), Path(args.out)
    if target.exists():
        raise UserError(f"{target}: exists already; move it away or give another -o")
    if target.parent.is_file() or not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder")
    if is_darknet_file(source):
        if is_darknet_file(target):
            raise UserError(f"{target}: expected a .pt; a .weights converts to a .pt only")
        if args.cfg is None:
            raise UserError(
                f"{source}: give its network: --cfg yolov4-pacsp-mish.yaml, or its .cfg"
            )
        weights = read_darknet(source, read_config(args.cfg), cli.read_darknet_options(args))
        print("\n".join(weights.notes))
        if not weights.complete:
            raise UserError(
                f"{source}: holds only the first layers, so it cannot be converted. Train from it: "
                + format_command("train", "--cfg", args.cfg, "--weights", str(source))
            )
        save_weights(weights, target)
        print(f"written: {target}")
        return
    if not is_darknet_file(target):
        raise UserError(f"{target}: expected a name that ends with .weights")
    weights = read_weights(source)
    order = export_darknet(weights, target, order=args.order)
    print(f"written: {target}, order {order}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main)
