"""Check a data set: files, labels, splits and, with --cfg, its fit to a model.

Exit status: 0 without errors, 1 with errors in the data, 2 if it could not be checked.
"""

import json
from pathlib import Path

from detector.anchors import flatten_anchors
from detector.build import build_anchors, resolve_anchors
from detector.commands import cli
from detector.config import Config
from detector.data import list_splits, load_data_yaml, read_split
from detector.data.checks import check_dataset, plot_labels, plot_sheet
from detector.errors import UserError
from detector.weights.darknet import read_config

REQUIRED = ["train", "val"]  # a test split is checked if there is one
EXIT_ERRORS = 1


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/check_data.py mine.yaml --cfg yolov4-pacsp-s-mish.yaml"
    )
    parser.add_argument("data", metavar="DATA.yaml", help="a path, or a name in data/")
    parser.add_argument(
        "--cfg", metavar="YAML", help="the model whose anchors and data.size the boxes should fit"
    )
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--fast", action="store_true", help="check labels only; open no image")
    parser.add_argument(
        "--workers", type=int, default=2, help="threads that decode images (default 2)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--plot", metavar="FOLDER", help="draw histograms and labelled images")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.size=416")
    args = parser.parse_intermixed_args()
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: expected 1 or more")
    if args.overrides and not args.cfg:
        raise UserError(f"{args.overrides[0]}: key=value needs a model; name it by --cfg")

    dataset, root = load_data_yaml(args.data)
    wanted = REQUIRED + [split for split in list_splits(dataset, root) if split not in REQUIRED]
    indices = {split: read_split(dataset, root, split) for split in wanted}
    config = read_config(args.cfg, args.overrides) if args.cfg else Config()
    anchors = None
    if args.cfg:
        config, _ = resolve_anchors(config, indices["train"])  # those that a run would use
        anchors = flatten_anchors(build_anchors(config.model, len(indices["train"].names)))
    report = check_dataset(
        args.data,
        indices,
        size=config.data.size,
        anchors=anchors,
        ratio=config.loss.anchor_ratio,
        decode=not args.fast,
        workers=args.workers,
    )
    for line in indices["train"].notes:
        print(line)
    print(report.text())
    try:
        if args.json:
            Path(args.json).write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")
        if args.plot:
            folder = Path(args.plot)
            folder.mkdir(parents=True, exist_ok=True)
            for split, index in indices.items():
                labels, sheet = folder / f"{split}-labels.png", folder / f"{split}-images.jpg"
                plot_labels(labels, index, size=config.data.size, anchors=anchors)
                plot_sheet(sheet, index)
                print(f"plots: {labels}, {sheet}")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None
    if report.failed(strict=args.strict):
        raise SystemExit(EXIT_ERRORS)


if __name__ == "__main__":
    cli.run(main)
