"""Train with each of several recipes and seeds, and tabulate their AP: the evidence of docs/recipes.md.

A recipe is a few `key=value` words that change the defaults; `--recipes` names those that were tried.
Runs that have finished are not repeated, and a stopped one resumes, so the command can be stopped and
started again, or started with more seeds.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from detector.api.run_request import RunRequest
from detector.api.train import train_with_seeds
from detector.commands import cli
from detector.engine import ProcessGroup
from detector.errors import UserError
from detector.registry import nearest

SGD = ("train.optimizer=sgd", "train.warmup_bias_lr=0.02")
RECIPES: dict[str, tuple[str, ...]] = {
    "auto": (),
    "published": ("recipe=published", "model.anchors=null"),
    "published-anchors": ("model.anchors=published",),
    "sgd-0.03": (*SGD, "train.lr=0.03"),
    "sgd-0.1": (*SGD, "train.lr=0.1"),
    "adamw-0.0005": ("train.optimizer=adamw", "train.lr=0.0005"),
    "adamw-0.001": ("train.optimizer=adamw", "train.lr=0.001"),
    "adamw-0.002": ("train.optimizer=adamw", "train.lr=0.002"),
    "adamw-0.004": ("train.optimizer=adamw", "train.lr=0.004"),
    "nominal-16": ("train.nominal_batch=16", "train.batch_size=16"),
    "nominal-64": ("train.nominal_batch=64", "train.batch_size=16"),
    "cls-factor-1": ("loss.cls_factor=1.0",),
    "cls-factor-16": ("loss.cls_factor=16.0",),
    "long-ema": ("train.ema_decay=0.9999", "train.ema_warmup=2000.0"),
    "mosaic-to-the-end": ("bag.mosaic_off_epochs=0",),
    "giou": ("loss.box_loss=giou",),
    "diou": ("loss.box_loss=diou",),
    "eiou": ("loss.box_loss=eiou",),
    "siou": ("loss.box_loss=siou",),
    "obj-iou": ("loss.obj_target=iou",),
    "obj-one": ("loss.obj_target=one",),
    "simota": ("loss.assigner=simota",),
    "task-aligned": ("loss.assigner=task_aligned",),
    "focal": ("loss.cls_loss=focal",),
    "varifocal": ("loss.cls_loss=varifocal",),
}


def main() -> None:
    args = parse_arguments()
    request = RunRequest(
        cfg=args.cfg,
        folder=Path(args.out),
        overrides=tuple(args.overrides),
        data=args.data,
        weights=None if args.weights is None else Path(args.weights),
    )
    process_group = ProcessGroup.initialize()
    rows: list[tuple[str, list[float]]] = []
    try:
        for name in args.recipes:
            words = find_recipe(name)
            wanted = replace(
                request, folder=Path(args.out, name), overrides=(*words, *request.overrides)
            )
            scores = train_with_seeds(
                wanted, args.seeds, process_group, resume="", resume_words=sys.argv[1:]
            )
            rows.append((name, scores))
            print(format_table(args.seeds, rows))
    finally:
        process_group.destroy()


def find_recipe(name: str) -> tuple[str, ...]:
    """The words of a recipe: one of `RECIPES`, or `key=value` words joined by commas."""
    if name in RECIPES:
        return RECIPES[name]
    if "=" not in name:
        raise UserError(
            f"--recipes: unknown recipe {name!r}{nearest(name, list(RECIPES))} "
            f"(known: {', '.join(RECIPES)}; or key=value words joined by commas)"
        )
    return tuple(name.split(","))


def format_table(seeds: list[str], rows: list[tuple[str, list[float]]]) -> str:
    """Markdown: AP of each recipe and seed, mean, standard deviation, difference from the first row."""
    header = ["recipe", *(f"seed {seed}" for seed in seeds), "mean AP", "sd", "difference"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    base = statistics.mean(rows[0][1])
    for name, scores in rows:
        mean = statistics.mean(scores)
        spread = f"{statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        values = [f"{score:.3f}" for score in scores]
        difference = "" if scores is rows[0][1] else f"{mean - base:+.3f}"
        lines.append([name, *values, f"{mean:.3f}", spread, difference])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parse_arguments() -> argparse.Namespace:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/compare_recipes.py --cfg yolov4-pacsp-n-mish --data digits.yaml "
        "--recipes auto published --seeds 0 1 2",
    )
    option = parser.add_argument
    option("--cfg", metavar="YAML", required=True, help="a path, or a name in configs/")
    option("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    option("--weights", metavar="FILE", help="weights to start from, a .pt or a .weights")
    recipes_help = f"the first is the baseline; of {', '.join(RECIPES)}, or key=value,key=value"
    option("--recipes", metavar="NAME", nargs="+", default=["auto", "published"], help=recipes_help)
    option("--seeds", metavar="N", nargs="+", default=["0", "1", "2"], help="(default 0 1 2)")
    option(
        "--out", metavar="FOLDER", default="runs/recipes", help="of the runs (default runs/recipes)"
    )
    option("overrides", nargs="*", metavar="key=value", help="for all, e.g. train.epochs=40")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
