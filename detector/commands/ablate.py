"""Change one component, train with paired seeds, and report each difference with an interval.

Each arm is trained with the same seeds; runs of one seed start from the same weights and see the same
images with the same augmentation. The command can be stopped and started again: finished runs are not
repeated, others resume. It writes report.html, report.md and report.json.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detector.build import is_classifier
from detector.command_names import TOOLS, format_command
from detector.commands import cli
from detector.commands.launch import make_train_command, make_train_environment
from detector.config import Config
from detector.config.duration import format_duration, parse_duration
from detector.data import SPLITS
from detector.errors import UserError, replace_text
from detector.study.answer import Answer, find_answer
from detector.study.collect import collect_results
from detector.study.image_bootstrap import RESAMPLES, load_evaluations, resample_images
from detector.study.job_scripts import MARGIN, Task, make_kubernetes_job, make_sbatch_script
from detector.study.page import write_page
from detector.study.plan import (
    Arm,
    Study,
    iterate_configs,
    load_study,
    open_study,
    parse_arm,
    parse_variations,
    read_study_pool,
    require_arms,
    take_shard,
    write_study_folds,
)
from detector.study.runner import GRACE, Machine, Runner, select_environment
from detector.study.study_file import StudyFile, read_study_file
from detector.study.study_metrics import CLASSIFICATION, DETECTION, Metric, choose_metric
from detector.study.study_words import list_study_words
from detector.study.text import format_markdown, format_text


def main(words: Sequence[str] | None = None) -> None:
    args = parse_arguments(words)
    if args.report is not None:
        folder = Path(args.report)
        write_answer(folder, load_study(folder), **select_report_options(args))
        return
    folder, study = Path(args.out), make_study(args)
    configs = load_configs(study, folder)
    choose_metric(list_metrics(configs), args.metric)
    if args.launch is not None:
        print(make_job(study, folder, args), end="")
        return
    runner = make_runner(study, folder, configs, args.jobs)
    runs = take_shard(study.list_runs(), args.shard, len(study.arms))
    print(runner.describe_budget(runs))
    pool = read_study_pool(study, find_dataset(study, configs))
    if pool is not None:
        print(f"{pool.describe(study.folds)}; each seed has folds of its own")
    if args.dry_run:
        return
    open_study(folder, study)
    write_study_folds(study, folder, pool)
    time_limit = None if args.time_limit is None else parse_duration(args.time_limit)
    complete = runner.run(runs, time_limit=time_limit)
    write_answer(folder, study, **select_report_options(args))
    if not complete:
        print(
            f"stopped after {format_duration(time_limit or 0)}; the same command resumes the study"
        )
    if runner.failed:
        names = ", ".join(run.name for run in runner.failed)
        raise UserError(
            f"{len(runner.failed)} run(s) failed: {names}; the same command tries again"
        )


def make_runner(study: Study, folder: Path, configs: Mapping[str, Config], jobs: int) -> Runner:
    """What trains the runs of a study on this machine, `jobs` at a time."""
    return Runner(
        study=study,
        folder=folder,
        command=make_train_command(),
        machine=Machine.detect(torch.cuda.device_count()),
        jobs=jobs,
        epochs={name: config.train.epochs for name, config in configs.items()},
        environment=select_environment(make_train_environment()),
    )


def make_job(study: Study, folder: Path, args: argparse.Namespace) -> str:
    """What the scheduler of --launch takes: a task for each shard of the study.

    Raises:
        UserError: an option is missing or out of range.
    """
    pairs = len(study.pairs)
    shards = pairs if args.shards is None else args.shards
    if shards < 1 or args.cpus < 1 or args.gpus < 0:
        raise UserError("--shards and --cpus are 1 or more, --gpus 0 or more")
    limit = None if args.time_limit is None else parse_duration(args.time_limit)
    words = [*list_study_words(study, folder), "--jobs", str(args.jobs)]
    words += ["--time-limit", args.time_limit] if args.time_limit is not None else []
    words += ["--metric", args.metric] if args.metric is not None else []
    words += ["--all-pairs"] if args.all_pairs else []
    slurm = args.launch == "slurm"
    task = Task(
        command=[
            *([sys.executable, "-m", "detector"] if slurm else ["detector"]),
            "ablate",
            *words,
        ],
        shards=shards,
        name=re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "study",
        logs=folder.absolute(),
        seconds=None if limit is None else limit + GRACE + MARGIN,
        cpus=args.cpus,
        gpus=args.gpus,
    )
    if slurm:
        task.logs.mkdir(parents=True, exist_ok=True)  # Slurm does not, and drops what is printed
        root = str(TOOLS.parent) if TOOLS.is_dir() else None
        return make_sbatch_script(task, folder=Path.cwd(), python_path=root)
    claim, colon, mount = (args.claim or "").partition(":")
    if not colon or not claim or not mount.startswith("/"):
        raise UserError("--launch k8s needs --claim NAME:/MOUNT, the volume that all pods share")
    return make_kubernetes_job(task, image=args.image, claim=claim, mount=mount)


def make_study(args: argparse.Namespace) -> Study:
    """The study that the command line describes.

    Raises:
        UserError: its options are incomplete or contradict each other.
    """
    file = apply_study_file(args)
    if args.cfg is None:
        raise UserError(
            "give --cfg and --vary, or --study, to run a study, or --report to report on one"
        )
    arms = (*parse_variations(args.vary), *map(parse_arm, args.arm))
    if any(
        word.startswith("train.seed=") for arm in arms for word in (*arm.words, *args.overrides)
    ):
        raise UserError("train.seed is what pairs the runs; --seeds sets it")
    require_fold_options(args)
    require_key_of_arms(arms, args.within)
    published = ()
    if file is not None:
        described = {"cfg": args.cfg, "data": args.data, "words": args.overrides, "arms": arms}
        published = file.select_published(**described)
    return Study(
        cfg=args.cfg,
        data=args.data,
        weights=args.weights,
        words=tuple(args.overrides),
        arms=arms,
        seeds=parse_seeds(args.seeds or ("1" if args.folds else "5")),
        baseline=require_arms(arms, args.baseline),
        folds=args.folds,
        group=args.group_by,
        pool=tuple(args.pool.split(",")),
        within=args.within,
        published=published,
        source=file.published.source if file is not None and file.published else "",
    )


def apply_study_file(args: argparse.Namespace) -> StudyFile | None:
    """Takes the options that the command line does not give from the YAML of --study.

    Raises:
        UserError: no such file, or a mistake in it.
    """
    if args.study is None:
        return None
    file = read_study_file(args.study)
    for name in ("cfg", "data", "weights", "baseline", "within", "seeds", "metric"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(file, name))
    if not args.vary and not args.arm:
        args.vary, args.arm = list(file.vary), list(file.arm)
    args.overrides = [*file.words, *args.overrides]
    return file


def require_key_of_arms(arms: Sequence[Arm], within: str | None) -> None:
    """Checks that --within names a key that the arms set.

    Raises:
        UserError: it does not.
    """
    keys = {word.partition("=")[0] for arm in arms for word in arm.words}
    if within is not None and within not in keys:
        raise UserError(f"--within {within}: expected a key of the arms: {', '.join(sorted(keys))}")


def require_fold_options(args: argparse.Namespace) -> None:
    """Checks the options of a cross-validation.

    Raises:
        UserError: a number of folds that makes none, splits that do not exist, or --group-by alone.
    """
    if args.folds < 0 or args.folds == 1:
        raise UserError(f"--folds {args.folds}: expected 2 or more")
    if args.group_by is not None and not args.folds:
        raise UserError("--group-by says which images share a fold; give --folds, too")
    splits = args.pool.split(",")
    if not set(splits) <= set(SPLITS) or len(set(splits)) < len(splits):
        raise UserError(f"--pool {args.pool}: expected splits of the data set, such as train,val")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` is the seeds 0 to 4; `3,7,9` names them, and `3,` is one.

    Raises:
        UserError: neither.
    """
    words = text.removesuffix(",").split(",")
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UserError(f"--seeds {text}: expected a number of seeds (5), or a list (0,3,7)")
    listed = "," in text
    seeds = tuple(map(int, words)) if listed else tuple(range(int(text)))
    if not seeds:
        raise UserError("--seeds 0: expected 1 or more; an interval needs 2 or more")
    return seeds


def select_report_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the command that `write_answer` takes."""
    return {name: getattr(args, name) for name in ("metric", "all_pairs", "image_resamples")}


def load_configs(study: Study, folder: Path) -> dict[str, Config]:
    """The config of each arm, by name.

    Raises:
        UserError: the mistakes of an arm's settings.
    """
    return {arm.name: config for arm, config in iterate_configs(study, folder)}


def list_metrics(configs: Mapping[str, Config]) -> tuple[Metric, ...]:
    """The metrics of all arms.

    Raises:
        UserError: some are classifiers, others detectors.
    """
    kinds = {is_classifier(config.model) for config in configs.values()}
    if len(kinds) > 1:
        raise UserError("some arms are classifiers and some detectors; a study compares one kind")
    return CLASSIFICATION if True in kinds else DETECTION


def find_dataset(study: Study, configs: Mapping[str, Config]) -> str:
    """The data set of all arms.

    Raises:
        UserError: there are folds, and the arms have different ones.
    """
    datasets = [config.data.dataset for config in configs.values()]
    if study.folds and len(set(datasets)) > 1:
        raise UserError("--folds: the arms have different data sets; a fold is of one")
    return datasets[0]


def write_answer(
    folder: Path,
    study: Study,
    *,
    metric: str | None = None,
    all_pairs: bool = False,
    image_resamples: int = RESAMPLES,
) -> Answer | None:
    """Prints the answer and writes report.json, report.md and report.html; None if no run has finished.

    Args:
        folder: of the study.
        study: whose answer it is.
        metric, all_pairs: as in `find_answer`.
        image_resamples: as in `resample_images`.

    Raises:
        UserError: the runs have no such metric, or a file cannot be read or written.
    """
    results = collect_results(study, folder)
    evaluations = load_evaluations(folder, results) if image_resamples else {}
    images = resample_images(evaluations, resamples=image_resamples)
    answer = find_answer(study, results, metric=metric, all_pairs=all_pairs, images=images)
    if not answer.num_finished:
        print(f"{folder}: no run has finished yet, so there is nothing to report")
        return None
    print(f"\n{format_text(answer)}\n")
    command = format_study_command(study, folder)
    page = folder / "report.html"
    write_page(page, answer, command)
    replace_text(folder / "report.md", format_markdown(answer, command))
    cli.write_json(folder / "report.json", {"command": command, **answer.as_json()})
    print(f"report: {page}, report.md and report.json beside it")
    return answer


def format_study_command(study: Study, folder: Path) -> str:
    """The command that makes a study, from its description."""
    return format_command("ablate", *list_study_words(study, folder))


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/ablate.py --cfg yolov4-pacsp-n-mish.yaml --data digits.yaml "
        "--vary model.activation=mish,leaky_relu,swish --seeds 5 train.epochs=8",
    )
    option = parser.add_argument
    study_help = "these options as a YAML: a path, or a name in configs/ such as paper/table1.yaml"
    option("--study", metavar="YAML", help=study_help)
    option("--cfg", metavar="YAML", help="a path, a name in configs/, or a darknet .cfg")
    option("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    option("--weights", metavar="FILE", help="weights to start from, a .pt or a .weights")
    vary_help = (
        "what differs between the arms, such as model.activation=mish,relu; several make a grid"
    )
    option("--vary", metavar="KEY=A,B", action="append", default=[], help=vary_help)
    arm_help = "an arm that changes several keys: 'NAME: key=value key=value'; any number of them"
    option("--arm", metavar="ARM", action="append", default=[], help=arm_help)
    option("--baseline", metavar="NAME", help="the arm to compare with (default: the first)")
    within_help = "a key of the arms, such as model.arch: compare only arms of the same value of it"
    option("--within", metavar="KEY", help=within_help)
    seeds_help = "a number of seeds, or a list 0,3,7 (default 5; with --folds 1)"
    option("--seeds", metavar="N", help=seeds_help)
    folds_help = "pairs by K-fold cross-validation over images, for small data sets"
    option("--folds", metavar="K", type=int, default=0, help=folds_help)
    group_help = "images whose path matches alike stay in one fold: a regular expression"
    option("--group-by", metavar="REGEX", help=group_help)
    pool_help = "splits whose images the folds share out (default train,val)"
    option("--pool", metavar="SPLITS", default="train,val", help=pool_help)
    metric_help = "of the verdict: a column of results.csv (default AP; of classifiers top1)"
    option("--metric", metavar="NAME", help=metric_help)
    images_help = f"of the validation images, for an interval over them (default {RESAMPLES})"
    option("--image-resamples", metavar="N", type=int, default=RESAMPLES, help=images_help)
    option("--all-pairs", action="store_true", help="compare all arms with each other")
    add_running_options(parser)
    option("--report", metavar="FOLDER", help="report on the study in FOLDER; train nothing")
    option("overrides", nargs="*", metavar="key=value", help="for all arms, e.g. train.epochs=40")
    args = parser.parse_intermixed_args(words)
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: expected 1 or more")
    if args.image_resamples < 0:
        raise UserError(f"--image-resamples {args.image_resamples}: expected 0 or more")
    return args


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where and how long a study trains."""
    option = parser.add_argument
    jobs_help = "runs at a time; GPUs by turns (default 1)"
    option("--jobs", metavar="N", type=int, default=1, help=jobs_help)
    option("--shard", metavar="I/N", help="train this machine's share; all see the same --out")
    option("--time-limit", metavar="TIME", help="stop after TIME, resumable: 90s, 55m, 7.5h")
    option("--dry-run", action="store_true", help="print the budget and stop")
    option("--out", metavar="FOLDER", default="runs/study", help="(default runs/study)")
    launch_help = (
        "print what sbatch or kubectl apply takes, a task for each shard, and train nothing"
    )
    option("--launch", choices=("slurm", "k8s"), help=launch_help)
    option = parser.add_argument_group("for --launch").add_argument
    option("--shards", metavar="N", type=int, help="tasks (default: one for each pair)")
    option("--cpus", metavar="N", type=int, default=4, help="of each task (default 4)")
    option("--gpus", metavar="N", type=int, default=1, help="of each task (default 1)")
    option("--image", default="detector:latest", help="k8s: of the container (detector:latest)")
    option("--claim", metavar="NAME:/MOUNT", help="k8s: the volume claim that all pods share")


if __name__ == "__main__":
    cli.run(main)
