"""Evaluate weights, or results of any toolkit: COCO's twelve numbers on the validation split."""

import argparse
from pathlib import Path

from detector.api.class_validation import evaluate_class_weights, holds_classifier
from detector.api.validation import (
    Evaluation,
    add_intervals,
    attach_images,
    evaluate_results,
    evaluate_weights,
    format_evaluation,
    read_ground_truth,
    write_metrics,
)
from detector.commands import cli
from detector.errors import UserError
from detector.evaluation import (
    RESAMPLES,
    ThresholdGoal,
    analyse,
    choose_backend,
    format_comparison,
    format_operating_points,
    save_results,
)
from detector.html_report import write_class_report, write_report

TTA = ("eval.flip=true", "eval.scales=[0.8, 1.0, 1.2]")


def main() -> None:
    args = parse_args()
    if any(holds_classifier(path) for path in map(Path, args.weights)):
        evaluate_classifiers(args)
        return
    evaluations = evaluate(args)
    if args.interval is not None:
        add_intervals(evaluations, resamples=args.interval, seed=args.seed)
    for each in evaluations:
        print(format_evaluation(each, args.interval))
    if len(evaluations) > 1:
        print(format_comparison([each.result for each in evaluations]))
    if args.save_results:
        first = evaluations[0]
        save_results(Path(args.save_results), first.results, first.ground_truth)
        print(f"detections: {args.save_results}")
    if args.report or args.goal != ThresholdGoal():
        for each in evaluations:
            analyse_errors(each, args)
    if args.json:
        write_metrics(Path(args.json), evaluations)
        print(f"metrics: {args.json}")


def evaluate_classifiers(args: argparse.Namespace) -> None:
    """Prints the accuracies of each classifier; writes the report, and the numbers as JSON.

    Raises:
        UserError: an option of detectors, or not all weights are classifiers.
    """
    for option in ("interval", "save_results", "protocol", "tta", "backend", "out"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise UserError(
                f"--{name} is for detectors; a classifier's intervals are always printed"
            )
    overrides = list(args.overrides)
    for key in ("data.size", "train.precision"):
        value = getattr(args, key.split(".")[1])
        overrides += [] if value is None else [f"{key}={value}"]
    evaluations = []
    for path in map(Path, args.weights):
        if not holds_classifier(path):
            raise UserError(
                f"{path}: a detector; evaluate it and the classifiers one after the other"
            )
        evaluations.append(evaluate_class_weights(path, overrides, dataset=args.data))
        print(evaluations[-1].format_text())
    if args.report:
        print(f"report: {write_class_report(Path(args.report), evaluations[0])}")
    if args.json:
        rows = [{"weights": e.source, **e.analysis.as_json()} for e in evaluations]
        cli.write_json(Path(args.json), {"models": rows})
        print(f"metrics: {args.json}")


def evaluate(args: argparse.Namespace) -> list[Evaluation]:
    """Evaluates each weights or results file."""
    if args.results:
        ground_truth = read_ground_truth(args.data)
        backend = args.backend or "auto"
        evaluations = [evaluate_results(Path(p), ground_truth, backend) for p in args.results]
        if args.report:
            attach_images(evaluations[0], args.data)
        return evaluations
    overrides = list(args.overrides)
    for key in ("data.size", "eval.protocol", "train.precision", "eval.backend"):
        value = getattr(args, key.split(".")[1])
        overrides += [] if value is None else [f"{key}={value}"]
    overrides += TTA if args.tta else ()
    evaluations = []
    for path in map(Path, args.weights):
        one = evaluate_weights(
            path,
            overrides,
            dataset=args.data,
            cfg=args.cfg if path.suffix == ".weights" or len(args.weights) == 1 else None,
            options=cli.read_darknet_options(args),
        )
        evaluations.append(one)
        if args.out is None or len(args.weights) == 1:
            folder = path if path.is_dir() else path.parent
            picture = Path(args.out) if args.out else folder / "val.jpg"
            one.draw(picture)
            one.notes.append(f"picture: {picture}")
    return evaluations


def analyse_errors(evaluation: Evaluation, args: argparse.Namespace) -> None:
    """Prints the confidence thresholds for the goal, and writes the report."""
    backend = choose_backend(args.backend or "auto")
    analysis = analyse(evaluation.ground_truth, evaluation.results, backend, args.goal)
    print(f"{evaluation.result.source}: {format_operating_points(analysis)}")
    if args.report:
        print(f"report: {write_report(Path(args.report), evaluation, analysis)}")


def parse_args() -> argparse.Namespace:
    """Parses the options; `goal` is what confidence thresholds are chosen for.

    Raises:
        UserError: options that do not go together, or values out of range.
    """
    parser = make_parser()
    args = parser.parse_intermixed_args()
    words = args.weights or []
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    args.overrides += settings  # given after the files
    args.weights = [word for word in words if word not in settings]
    if not args.weights and not args.results:
        parser.error("--weights needs a file")
    if args.interval is not None and args.interval < 2:
        raise UserError(
            f"--interval {args.interval}: expected at least 2 resamples; {RESAMPLES} are usual"
        )
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")
    sources = args.weights or args.results
    for option, value in (("--save-results", args.save_results), ("--report", args.report)):
        if value and len(sources) > 1:
            raise UserError(f"{option} works for one model, but {len(sources)} are given")
    args.goal = ThresholdGoal()
    if args.want_precision is not None:
        args.goal = ThresholdGoal("precision", args.want_precision)
    if args.want_recall is not None:
        args.goal = ThresholdGoal("recall", args.want_recall)
    return args


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/val.py --weights runs/yolov4-pacsp-n-mish/best.pt --size 736\n"
        "  python tools/val.py --weights runs/mish runs/leaky --interval\n"
        "  python tools/val.py --results detections.json --data coco.yaml",
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights", metavar="FILE", nargs="+", help=".pt or .weights files, or run folders"
    )
    source.add_argument(
        "--results", metavar="JSON", nargs="+", help="detections in COCO's format; no images needed"
    )
    add("--cfg", help="network of a .weights file: a name in configs/, or a darknet .cfg")
    add(
        "--data",
        metavar="YAML",
        help="a data YAML, or with --results COCO's json file; default: the one trained on",
    )
    add("--out", metavar="JPG", help="picture of detections; default val.jpg beside the weights")
    add("overrides", nargs="*", metavar="key=value", help="e.g. data.workers=4")
    inference = parser.add_argument_group("inference")
    inference.add_argument("--size", type=int, help="image size in pixels: data.size")
    inference.add_argument(
        "--protocol", help="letterbox, rectangular, pytorch_yolov4 or darknet: eval.protocol"
    )
    inference.add_argument("--precision", help="fp32, bf16 or fp16: train.precision")
    inference.add_argument(
        "--tta", action="store_true", help="test-time augmentation: " + " ".join(TTA)
    )
    add_output_options(parser)
    cli.add_darknet_options(parser)
    return parser


def add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--backend", help="auto, hotcoco or pycocotools: eval.backend")
    output.add_argument(
        "--interval",
        metavar="N",
        nargs="?",
        type=int,
        const=RESAMPLES,
        help="95 %% bootstrap confidence intervals from N resamples of the images (default "
        f"{RESAMPLES})",
    )
    output.add_argument(
        "--seed", type=int, default=0, help="random seed of the resamples (default 0)"
    )
    output.add_argument("--json", metavar="FILE", help="write the numbers to this file")
    output.add_argument(
        "--save-results", metavar="FILE", help="write the detections, in COCO's format"
    )
    output.add_argument(
        "--report", metavar="FOLDER", help="write report.html and its pictures to this folder"
    )
    goal = output.add_mutually_exclusive_group()
    goal.add_argument(
        "--want-precision",
        metavar="P",
        type=float,
        help="print the confidence thresholds, overall and per class, that reach this precision",
    )
    goal.add_argument(
        "--want-recall",
        metavar="R",
        type=float,
        help="the same for a recall; by default the report maximises F1",
    )


if __name__ == "__main__":
    cli.run(main)
