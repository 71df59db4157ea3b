"""Compare recipes over several seeds, as `ablate` does it: the evidence of docs/recipes.md.

A recipe is a few `key=value` words that change the defaults; `--recipes` names those that were tried.
Each is an arm of a study, so that the command resumes, and reports differences with intervals.
"""

import argparse
from collections.abc import Sequence

from detector.commands import ablate, cli
from detector.errors import UserError
from detector.registry import nearest
from detector.study.plan import make_file_name

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
    ablate.main(list_study_words(parse_arguments()))


def list_study_words(args: argparse.Namespace) -> list[str]:
    """The arguments of `ablate` that compare the recipes.

    Raises:
        UserError: an unknown recipe.
    """
    words = ["--cfg", args.cfg]
    for name in ("data", "weights"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name}", value]
    for name in args.recipes:
        words += ["--arm", " ".join([f"{make_file_name(name)}:", *find_recipe(name)])]
    words += ["--seeds", f"{','.join(args.seeds)},", "--out", args.out]
    return [*words, *args.overrides]


def find_recipe(name: str) -> Sequence[str]:
    """The words of a recipe: one of `RECIPES`, or `key=value` words joined by commas."""
    if name in RECIPES:
        return RECIPES[name]
    if "=" not in name:
        raise UserError(
            f"--recipes: unknown recipe {name!r}{nearest(name, list(RECIPES))} "
            f"(known: {', '.join(RECIPES)}; or key=value words joined by commas)"
        )
    return tuple(name.split(","))


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
