"""Evaluate weights, or results of any toolkit: COCO's twelve numbers on the validation split."""

import argparse
import json
from pathlib import Path

from detector.api.validation import (
    Evaluation,
    add_images,
    add_intervals,
    evaluate_results,
    evaluate_weights,
    interval_lines,
    points,
    read_ground_truth,
)
from detector.commands import cli
from detector.errors import UserError
from detector.evaluation import (
    RESAMPLES,
    ThresholdGoal,
    analyse,
    choose_backend,
    compare,
    save_results,
    table,
)
from detector.html_report import write_report
from detector.weights.darknet import DarknetOptions

TTA = ("eval.flip=true", "eval.scales=[0.8, 1.0, 1.2]")


def main() -> None:
    parser = cli.parser(
        __doc__ or "",
        "python tools/val.py --weights runs/yolov4-pacsp-n-mish/best.pt --size 736\n"
        "  python tools/val.py --weights runs/mish runs/leaky --interval\n"
        "  python tools/val.py --results detections.json --data coco.yaml",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights", metavar="FILE", nargs="+", help=".pt or .weights files, run folders"
    )
    source.add_argument(
        "--results",
        metavar="JSON",
        nargs="+",
        help="found boxes in COCO's format; no images needed",
    )
    parser.add_argument("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    parser.add_argument(
        "--data", metavar="YAML", help="default: what the run was trained on; or COCO's json"
    )
    parser.add_argument("--out", metavar="JPG", help="picture; default val.jpg beside the weights")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.workers=4")
    how = parser.add_argument_group("how to look at the images")
    how.add_argument("--size", type=int, help="side in pixels: data.size")
    how.add_argument(
        "--protocol", help="letterbox, rectangular, pytorch_yolov4 or darknet: eval.protocol"
    )
    how.add_argument("--precision", help="fp32, bf16 or fp16: train.precision")
    how.add_argument("--tta", action="store_true", help="test-time augmentation: " + " ".join(TTA))
    said = parser.add_argument_group("what to say")
    said.add_argument("--backend", help="auto, hotcoco or pycocotools: eval.backend")
    said.add_argument(
        "--interval",
        metavar="N",
        nargs="?",
        type=int,
        const=RESAMPLES,
        help=f"95 %% bootstrap intervals from N resamples of the images (default {RESAMPLES})",
    )
    said.add_argument("--seed", type=int, default=0, help="of the resamples")
    said.add_argument("--json", metavar="FILE", help="write the numbers there")
    said.add_argument(
        "--save-results", metavar="FILE", help="write the found boxes, in COCO's format"
    )
    said.add_argument("--report", metavar="FOLDER", help="write report.html and its pictures there")
    goal = said.add_mutually_exclusive_group()
    goal.add_argument(
        "--want-precision",
        metavar="P",
        type=float,
        help="scores to ask for, of all and of each class, to reach it",
    )
    goal.add_argument(
        "--want-recall",
        metavar="R",
        type=float,
        help="the same; --report alone: those of the greatest F1",
    )
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()
    words = args.weights or []
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    args.overrides += settings  # which stand behind the files
    args.weights = [word for word in words if word not in settings]
    if not args.weights and not args.results:
        parser.error("--weights needs a file")
    if args.interval is not None and args.interval < 2:
        raise UserError(
            f"--interval {args.interval}: give at least 2 resamples, better {RESAMPLES}"
        )
    sources = args.weights or args.results
    for option, value in (("--save-results", args.save_results), ("--report", args.report)):
        if value and len(sources) > 1:
            raise UserError(f"{option} is about one model; give one")
    args.goal = goal_of(args)  # refused before the work
    show(args, outcomes_of(args))


def goal_of(args: argparse.Namespace) -> ThresholdGoal:
    """What thresholds are chosen for."""
    if args.want_precision is not None:
        return ThresholdGoal("precision", args.want_precision)
    return (
        ThresholdGoal() if args.want_recall is None else ThresholdGoal("recall", args.want_recall)
    )


def outcomes_of(args: argparse.Namespace) -> list[Evaluation]:
    """An evaluation for each source."""
    if args.results:
        truth = read_ground_truth(args.data)
        found = [evaluate_results(Path(p), truth, args.backend or "auto") for p in args.results]
        if args.report:
            add_images(found[0], args.data)
        return found
    words = list(args.overrides)
    for key in ("data.size", "eval.protocol", "train.precision", "eval.backend"):
        value = getattr(args, key.split(".")[1])
        words += [] if value is None else [f"{key}={value}"]
    words += TTA if args.tta else ()
    outcomes = []
    for path in map(Path, args.weights):
        options = DarknetOptions.of(args)
        cfg = args.cfg if path.suffix == ".weights" or len(args.weights) == 1 else None
        one = evaluate_weights(path, words, dataset=args.data, cfg=cfg, options=options)
        outcomes.append(one)
        folder = path if path.is_dir() else path.parent
        if args.out is None or len(args.weights) == 1:
            picture = Path(args.out) if args.out else folder / "val.jpg"
            one.draw(picture)
            one.notes.append(f"picture: {picture}")
    return outcomes


def show(args: argparse.Namespace, outcomes: list[Evaluation]) -> None:
    """Tables on the screen, numbers and boxes into files."""
    if args.interval is not None:
        add_intervals(outcomes, resamples=args.interval, seed=args.seed)
    for one in outcomes:
        about = one.row.about
        print(
            f"COCO AP of {one.row.source} on {about['images']} images, by {about['evaluator']}:\n"
            f"{table(one.row.metrics)}"
        )
        if one.row.bounds is not None:
            print(
                "\n".join([f"95 % intervals, {args.interval} resamples:", *interval_lines(one.row)])
            )
        if one.timer is not None:
            print(one.timer)
        for line in one.notes:
            print(line)
    if len(outcomes) > 1:
        print(compare([one.row for one in outcomes]))
    if args.save_results:
        save_results(Path(args.save_results), outcomes[0].results, outcomes[0].truth)
        print(f"found boxes: {args.save_results}")
    if args.report or args.goal != ThresholdGoal():
        judge_errors(args, outcomes)
    if args.json:
        write_json(Path(args.json), outcomes)


def judge_errors(args: argparse.Namespace, outcomes: list[Evaluation]) -> None:
    """From which score on the wanted precision or recall is reached, and the report."""
    backend = choose_backend(args.backend or "auto")
    for one in outcomes:
        analysis = analyse(one.truth, one.results, backend, args.goal)
        print(f"{one.row.source}, at IoU 0.5:\n{points(analysis)}")
        if args.report:
            path, notes = write_report(Path(args.report), one, analysis)
            print("\n".join([*notes, f"report: {path}"]))


def write_json(path: Path, outcomes: list[Evaluation]) -> None:
    try:
        path.write_text(json.dumps([one.row.as_json() for one in outcomes], indent=1))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"numbers: {path}")


if __name__ == "__main__":
    cli.run(main)
