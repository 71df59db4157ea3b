"""Find anchors for a data set: cluster its boxes by IoU, refine, print YAML to paste into a config."""

from dataclasses import asdict
from pathlib import Path

from detector.anchors import flatten_anchors, measure_fit
from detector.build import build_anchors, find_anchors
from detector.commands import cli
from detector.data import letterboxed_box_sizes, load_data_yaml, read_split
from detector.errors import UserError
from detector.weights.darknet import read_config


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/cluster_anchors.py --cfg yolov4-pacsp-s-mish.yaml --data mine.yaml",
    )
    parser.add_argument("--cfg", required=True, help="a path, a name in configs/, or a .cfg")
    parser.add_argument("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the search (default 0)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.size=416")
    parser.add_argument("--json", metavar="FILE", help="also write anchors and fit to this file")
    args = parser.parse_intermixed_args()
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")

    config = read_config(args.cfg, args.overrides, data=args.data)
    index = read_split(*load_data_yaml(config.data.dataset), "train")
    current = build_anchors(config.model, len(index.names))
    anchors = find_anchors(config, index, current, args.seed)

    sizes = letterboxed_box_sizes(index, config.data.size)[~index.crowd]
    ratio = config.loss.anchor_ratio
    print(f"# {config.data.dataset} at {config.data.size} px, matched below ratio {ratio:g}")
    before, after = (
        measure_fit(sizes, flatten_anchors(each), ratio) for each in (current, anchors)
    )
    print(f"# before: {before}")
    print(f"# after:  {after}")
    print("model:\n  anchors:")
    for level in anchors:
        print(f"    - [{', '.join(f'[{w:g}, {h:g}]' for w, h in level)}]")
    if config.model.darknet_cfg is not None:
        pairs = ", ".join(f"{w:g},{h:g}" for w, h in flatten_anchors(anchors))
        print(f"# in every [yolo] of the .cfg, finest level first: anchors = {pairs}")
    if args.json is not None:
        fits = {"before": asdict(before), "after": asdict(after)}
        cli.write_json(Path(args.json), {"anchors": anchors, **fits})


if __name__ == "__main__":
    cli.run(main)
