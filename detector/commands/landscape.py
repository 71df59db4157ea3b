"""Draw loss landscapes around trained weights, or output landscapes of random networks.

An interrupted computation is resumed when the same command is given again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.api.landscape import (
    LandscapeSettings,
    compute_output_landscape,
    measure_loss_landscape,
    summarise,
)
from detector.commands import cli
from detector.errors import UserError, writing
from detector.visualize.landscape_plots import draw_slices, draw_surfaces


def main() -> None:
    args = parse_args()
    folder = Path(args.out)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    values, axes = compute_outputs(args, folder) if args.output else compute_losses(args, folder)
    picture = folder / "landscape.png"
    with writing(picture):
        if len(axes) == 1:
            draw_slices(picture, axes[0], values)
        else:
            label = "output" if args.output else "loss"
            draw_surfaces(picture, axes[0], axes[1], values, label=label)
    results = {name: summarise(each, axes) for name, each in values.items()}
    for name, each in results.items():
        print(f"{name}: " + ", ".join(f"{key} {format_value(v)}" for key, v in each.items()))
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    cli.write_json(folder / "landscape.json", {"settings": settings, "results": results})
    print(f"drawn: {picture}; values: {folder}/*.npz, {folder / 'landscape.json'}")


def compute_losses(
    args: argparse.Namespace, folder: Path
) -> tuple[dict[str, np.ndarray], Sequence[np.ndarray]]:
    settings = LandscapeSettings(
        axes=1 if args.slice else 2,
        steps=args.steps,
        reach=args.range,
        images=args.images,
        split=args.split,
        seed=args.seed,
        overrides=tuple(args.overrides),
        data=args.data,
    )
    kind = "slice" if args.slice else "surface"
    names = name_weights(args.weights)
    values = {
        name: measure_loss_landscape(Path(path), settings, folder / f"{name}-{kind}.npz").values
        for name, path in zip(names, args.weights, strict=True)
    }
    return values, settings.make_axes()


def compute_outputs(
    args: argparse.Namespace, folder: Path
) -> tuple[dict[str, np.ndarray], Sequence[np.ndarray]]:
    values, axis = {}, np.zeros(0)
    for name in args.output:
        axis, values[name] = compute_output_landscape(
            name, steps=args.steps, reach=args.range, seed=args.seed
        )
        file = folder / f"{name}-output.npz"
        with writing(file):
            np.savez(file, axis0=axis, axis1=axis, values=values[name])
    return values, [axis, axis]


def name_weights(paths: Sequence[str]) -> list[str]:
    """A name for each file: that of its run folder, numbered where it occurs again."""
    names: list[str] = []
    for path in map(Path, paths):
        name = path.name if path.is_dir() else (path.parent.name or path.stem)
        count = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{count + 1}" if name in names else name)
    return names


def format_value(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(f"{each:g}" for each in value) + ")"
    return f"{value:.4g}"


def parse_args() -> argparse.Namespace:
    """Parses the options.

    Raises:
        UserError: values out of range, or options that do not go together.
    """
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/landscape.py --weights runs/mish runs/relu --slice --out runs/slices\n"
        "  python tools/landscape.py --output mish swish relu --out runs/output",
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights",
        nargs="+",
        metavar="FILE",
        help="checkpoints or run folders, drawn side by side",
    )
    source.add_argument(
        "--output", nargs="+", metavar="NAME", help="activations: outputs of a random network"
    )
    add("overrides", nargs="*", metavar="key=value", help="e.g. train.device=cpu")
    add("--slice", action="store_true", help="along one direction instead of two")
    add("--steps", type=int, default=25, help="along each direction, an odd number; default 25")
    add("--range", type=float, default=1.0, help="from minus this to this; default 1")
    add("--images", type=int, default=512, help="of the start of the split; default 512")
    add("--split", choices=("val", "train"), default="val", help="default val")
    add("--data", metavar="YAML", help="default: the data set trained on")
    add("--seed", type=int, default=0, help="of the directions, or of the random network")
    add("--out", default="runs/landscape", help="folder; default runs/landscape")
    args = parser.parse_intermixed_args()
    for option in ("weights", "output"):  # key=value words after the files
        words = getattr(args, option) or []
        args.overrides += [word for word in words if "=" in word and not Path(word).exists()]
        kept = [word for word in words if "=" not in word or Path(word).exists()]
        setattr(args, option, kept or None)
    if not (args.weights or args.output):
        parser.error("--weights needs a file, --output the name of an activation")
    if args.steps < 3 or args.steps % 2 == 0:
        raise UserError(f"--steps {args.steps}: expected an odd number of at least 3")
    if not 0 < args.range < float("inf"):
        raise UserError(f"--range {args.range:g}: expected more than 0")
    if args.images < 1 or args.seed < 0:
        raise UserError("--images: expected at least 1; --seed: at least 0")
    if args.output and (args.slice or args.data or args.overrides):
        raise UserError("--output has no weights: remove --slice, --data and key=value words")
    return args


if __name__ == "__main__":
    cli.run(main)
