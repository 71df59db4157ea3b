"""Copy a few images of a data set into a new one, to test whether a network can overfit them."""

from pathlib import Path

from detector.commands import cli
from detector.data import load_data_yaml, read_split, write_subset


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/subset.py --data coco.yaml --images 8 --out runs/eight"
    )
    parser.add_argument("--data", metavar="YAML", required=True, help="the data set to copy from")
    parser.add_argument(
        "--split", choices=("train", "val"), default="train", help="(default train)"
    )
    parser.add_argument("--images", type=int, default=8, help="number of images (default 8)")
    parser.add_argument("--boxes", type=int, default=3, help="minimum boxes per image (default 3)")
    parser.add_argument(
        "--side", type=float, default=8, help="minimum width and height of a box, px (default 8)"
    )
    parser.add_argument("--size", type=int, default=320, help="training size, px (default 320)")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the new data set")
    args = parser.parse_args()

    config, root = load_data_yaml(args.data)
    yaml = write_subset(
        read_split(config, root, args.split),
        Path(args.out),
        count=args.images,
        min_boxes=args.boxes,
        min_side=args.side,
        size=args.size,
    )
    print(f"{args.images} images: --data {yaml}")


if __name__ == "__main__":
    cli.run(main)
