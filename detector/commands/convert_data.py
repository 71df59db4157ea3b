"""Convert a data set of any supported format to COCO json or YOLO txt."""

import shutil
from pathlib import Path

from detector.api.summary import print_findings
from detector.commands import cli
from detector.data import list_splits, load_data_yaml, read_split
from detector.data.writers import convert
from detector.errors import UserError


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/convert_data.py --data voc.yaml --to coco --out data/voc-coco"
    )
    parser.add_argument("--data", metavar="YAML", required=True, help="the data set to convert")
    parser.add_argument("--to", choices=("coco", "yolo"), required=True, help="the new format")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder of the new data set")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--copy", action="store_true", help="copy the images (the default)")
    images.add_argument("--link", action="store_true", help="make symbolic links instead of copies")
    args = parser.parse_args()

    config, root = load_data_yaml(args.data)
    folder, splits = Path(args.out), list_splits(config, root)
    # All splits are read first, so that an error leaves no output.
    indices = {split: read_split(config, root, split) for split in splits}
    if folder.exists():
        raise UserError(f"{folder}: exists already; give another --out")
    copy = convert.link if args.link else shutil.copyfile
    folder.mkdir(parents=True)
    for line in indices[splits[0]].notes:
        print(line)
    for split, index in indices.items():
        if args.to == "coco":
            convert.write_coco(index, folder, split, copy=copy)
            crowds = 0
        else:
            crowds = convert.write_yolo(index, folder, split, copy=copy)
        skipped = f"; {crowds} crowd boxes skipped: YOLO's txt has no crowds" if crowds else ""
        boxes = len(index.boxes_xyxy) - crowds
        print(f"{split}: {len(index)} images, {boxes} boxes{skipped}")
        print_findings(split, index)
    path = folder / "data.yaml"
    convert.write_yaml(path, args.to, indices[splits[0]], splits, mirrors=config.mirrors)
    print(f"--data {path}")


if __name__ == "__main__":
    cli.run(main)
