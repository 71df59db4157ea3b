"""Train a detector, then print COCO's twelve numbers of the best weights."""

import argparse
import sys
from pathlib import Path

from detector.api.run_request import RunRequest
from detector.api.train import format_seed_summary, train, train_with_seeds
from detector.build import is_classifier
from detector.commands import cli
from detector.config.duration import parse_duration
from detector.engine import BatchLimit, Observer, ProcessGroup, TimeLimit
from detector.errors import UserError

EXAMPLE = "python tools/train.py --cfg yolov4-pacsp-mish.yaml --data coco.yaml train.epochs=100"


def main() -> None:
    run(__doc__ or "", EXAMPLE)


def run(description: str, example: str) -> None:
    """The command, for detectors and for classifiers: trains the network of `--cfg`, whichever it is."""
    args = parse_arguments(description, example)
    limits: list[Observer] = []  # the clock starts here, for all seeds
    if args.time_limit is not None:
        limits.append(TimeLimit(parse_duration(args.time_limit)))
    if args.batch_limit is not None:
        limits.append(BatchLimit(args.batch_limit))
    request = None if args.cfg is None else make_request(args)
    process_group = ProcessGroup.initialize()
    if not process_group.is_main:
        cli.silence()
    try:
        if request is None or not args.seeds:
            train(request, process_group, resume=args.resume, limits=limits)
            return
        words = [word for word in sys.argv[1:] if word != "--resume"] + ["--resume"]
        scores = train_with_seeds(
            request,
            args.seeds,
            process_group,
            resume=args.resume,
            limits=limits,
            resume_words=words,
        )
        metric = "top-1" if is_classifier(request.load_config().model) else "AP"
        print(format_seed_summary(args.seeds, scores, metric))
    finally:
        process_group.destroy()


def make_request(args: argparse.Namespace) -> RunRequest:
    return RunRequest(
        cfg=args.cfg,
        folder=Path(args.out or Path("runs", args.name or Path(args.cfg).stem)),
        overrides=tuple(args.overrides),
        data=args.data,
        weights=None if args.weights is None else Path(args.weights),
        darknet=cli.read_darknet_options(args),
    )


def parse_arguments(description: str, example: str) -> argparse.Namespace:
    parser = cli.make_parser(description, example)
    option = parser.add_argument
    option("--cfg", metavar="YAML", help="a path, a name in configs/, or a darknet .cfg")
    option("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    option("--weights", metavar="FILE", help="weights to start from, a .pt or a .weights")
    option("--out", metavar="FOLDER", help="run folder; default runs/NAME-OF-CFG")
    option("--name", help="short for --out runs/NAME")
    seeds_help = "a run per train.seed, one after the other, in folders NAME-seedN"
    option("--seeds", metavar="N", nargs="+", default=[], help=seeds_help)
    option(
        "--resume",
        metavar="FOLDER",
        nargs="?",
        const="",
        help="resume the run in FOLDER, or without FOLDER the newest one in runs/; with --cfg, resume "
        "the runs that the same command started: finished ones are not repeated, missing ones start",
    )
    option("--time-limit", metavar="TIME", help="stop after TIME, resumable: 90s, 55m, 7.5h")
    option("--batch-limit", metavar="N", type=int, help="stop after N batches, resumable")
    option("overrides", nargs="*", metavar="key=value", help="e.g. model.activation=relu")
    cli.add_short_flags(parser)
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()
    # argparse gives key=value words that follow --seeds or --resume to these options
    args.overrides += [word for word in args.seeds if "=" in word]
    args.seeds = [word for word in args.seeds if "=" not in word]
    if "=" in (args.resume or "") and not Path(args.resume).exists():
        args.overrides, args.resume = [*args.overrides, args.resume], ""
    args.overrides = cli.collect_overrides(args)
    require_consistent(args)
    return args


def require_consistent(args: argparse.Namespace) -> None:
    """Checks that the options do not contradict each other.

    Raises:
        UserError: they do.
    """
    seeds = args.seeds
    if not all(word.isdecimal() for word in seeds) or len(set(seeds)) < len(seeds):
        raise UserError("--seeds takes whole numbers, each once: --seeds 0 1 2")
    if args.cfg is None and args.resume is None:
        raise UserError("give --cfg to start a run, or --resume to resume one")
    settings = (args.cfg, args.overrides, args.data, args.out, args.name, args.weights, seeds)
    if args.resume and any(settings):
        raise UserError(f"--resume {args.resume} resumes that run as it is; it takes no settings")
    if args.cfg is None and any(settings):
        raise UserError(
            "--resume alone resumes the newest run as it is; it takes no settings, unless --cfg and the "
            "other options say which run is meant"
        )
    if args.out and args.name:
        raise UserError("--out and --name set the same thing; give one of them")
    if seeds and any(word.startswith("train.seed=") for word in args.overrides):
        raise UserError("--seeds and train.seed= set the same thing; give one of them")
    if args.batch_limit is not None and args.batch_limit < 1:
        raise UserError(f"--batch-limit {args.batch_limit}: expected 1 or more")


if __name__ == "__main__":
    cli.run(main)
