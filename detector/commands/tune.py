"""Search for better settings, and measure by fresh runs what the best of them are worth.

Optuna draws settings from the ranges of a YAML file; trials are trained on a part of the training images
and scored on the rest, and unpromising ones are pruned early. Then the best few and the default are
trained on all training images with fresh seeds and compared on the validation images, which the search
has not seen: the winner's number is theirs, not the luckiest of many. The command can be stopped and
started again, and several machines that see the same folder (or --storage) share the trials.
"""

import argparse
import dataclasses
import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detector.api.run_request import RunRequest
from detector.build import is_classifier
from detector.command_names import format_command
from detector.commands import ablate, cli
from detector.commands.launch import make_train_command, make_train_environment
from detector.config import Config
from detector.config.duration import parse_duration
from detector.data import Pool, read_pool, write_folds
from detector.engine import RunFolder
from detector.errors import UserError, reading, replace_text, writing
from detector.study.plan import Arm, Study, open_study
from detector.study.runner import Machine, select_environment
from detector.study.search_page import write_search_page
from detector.study.search_report import (
    SearchReport,
    TrialResult,
    format_search_markdown,
    format_search_text,
)
from detector.study.search_space import Range, find_defaults, format_words, read_space
from detector.study.study_metrics import CLASSIFICATION, DETECTION, Metric, choose_metric
from detector.study.trial_process import ProcessLauncher

if TYPE_CHECKING:  # Optuna belongs to an extra
    from detector.study.search import Search

FRESH_SEED = 1000  # the first seed of the runs that confirm; trials have 0
SEED_WORD = "train.seed=0"  # the same for all trials: what it does to all of them is no difference


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search is about; two commands that share a folder have to agree in it.

    Attributes:
        cfg, data, weights: as in `RunRequest`.
        words: `key=value` of all trials.
        space: the ranges.
        metric: the objective.
        holdout: share of the training images that score the trials.
        group: of the images that are held out together, as in `Study`.
    """

    cfg: str
    data: str | None
    weights: str | None
    words: tuple[str, ...]
    space: tuple[Range, ...]
    metric: str
    holdout: float
    group: str | None


def main() -> None:
    args = parse_arguments()
    require_optuna()
    started, folder = time.monotonic(), Path(args.out)
    space = read_space(Path(args.space))
    config = load_config(args, ())
    check_space(args, space)
    metric = choose_metric(
        CLASSIFICATION if is_classifier(config.model) else DETECTION, args.metric
    )
    plan = make_plan(args, space, metric)
    pool = read_pool(config.data.dataset, ("train",), args.group_by)
    folds = round(1 / args.holdout)
    print(
        f"trials train on {folds - 1}/{folds} of the {len(pool)} training images; the rest scores them"
    )
    if args.dry_run:
        return
    search = open_plan(args, folder, plan, pool, metric, config)
    print(search.describe_budget(args.trials))
    limit = None if args.time_limit is None else parse_duration(args.time_limit)
    complete = search.run(args.trials, time_limit=limit)
    left = None if limit is None else max(limit - (time.monotonic() - started), 0.0)
    study = find_study(search, plan, folder, args) if complete else None
    answer = None if study is None else confirm(study, folder, args, left)
    write_report(folder, make_report(search, plan, answer), format_tune_command(args))
    if not complete:
        print("stopped; the same command resumes the search")


def require_optuna() -> None:
    """Checks that Optuna is installed.

    Raises:
        UserError: says how to install it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("a search needs optuna: pip install 'detector[tune]'")


def load_config(args: argparse.Namespace, words: Sequence[str]) -> Config:
    """The config of a trial with these words.

    Raises:
        UserError: its mistakes.
    """
    request = RunRequest(
        cfg=args.cfg,
        folder=Path(args.out),
        overrides=(*args.overrides, *words),
        data=args.data,
        weights=None if args.weights is None else Path(args.weights),
    )
    return request.load_config()


def check_space(args: argparse.Namespace, space: Sequence[Range]) -> None:
    """Checks that the config takes both ends of each range, and each choice.

    Raises:
        UserError: names the first key that it does not take, and why.
    """
    given = {word.partition("=")[0] for word in args.overrides}
    if "train.seed" in given:
        raise UserError("train.seed: the search sets it; --fresh-seeds is the number of fresh ones")
    given.add("train.seed")
    for each in space:
        if each.key in given:
            raise UserError(
                f"{args.space}: {each.key} is set for all trials; remove it from one place"
            )
        for value in each.list_ends():
            try:
                load_config(args, format_words({each.key: value}))
            except UserError as error:
                raise UserError(f"{args.space}: {error}") from None


def make_plan(args: argparse.Namespace, space: tuple[Range, ...], metric: Metric) -> Plan:
    """The plan that the command line describes.

    Raises:
        UserError: an option is out of range.
    """
    if not 0.05 <= args.holdout <= 0.5:
        raise UserError(f"--holdout {args.holdout}: expected a share between 0.05 and 0.5")
    if min(args.trials, args.jobs) < 1 or args.top < 0 or args.fresh_seeds < 2:
        raise UserError(
            "--trials and --jobs are 1 or more, --fresh-seeds 2 or more, --top 0 or more"
        )
    return Plan(
        cfg=args.cfg,
        data=args.data,
        weights=args.weights,
        words=tuple(args.overrides),
        space=space,
        metric=metric.name,
        holdout=args.holdout,
        group=args.group_by,
    )


def open_plan(
    args: argparse.Namespace, folder: Path, plan: Plan, pool: Pool, metric: Metric, config: Config
) -> "Search":
    """Opens the search of a folder, or begins it.

    Raises:
        UserError: the folder holds another search, or a file or the storage cannot be written.
    """
    from detector.study.search import Search, open_search

    require_same_plan(folder / "tune.json", plan)
    held_out = folder / "holdout.yaml"
    write_folds(pool, round(1 / plan.holdout), 0, [held_out])
    arguments = ["--cfg", plan.cfg, "--data", str(held_out)]
    arguments += [] if plan.weights is None else ["--weights", plan.weights]
    launch = ProcessLauncher(
        folder=folder,
        command=make_train_command(),
        arguments=arguments,
        words=(*plan.words, SEED_WORD),
        metric=plan.metric,
        machine=Machine.detect(torch.cuda.device_count()),
        jobs=args.jobs,
        environment=select_environment(make_train_environment()),
    )
    study = open_search(
        args.storage or f"sqlite:///{(folder / 'tune.db').absolute()}",
        metric,
        sampler=args.sampler,
        pruner=args.pruner,
        epochs=config.train.epochs,
        seed=args.sampler_seed,
    )
    search = Search(study, plan.space, metric, folder, launch, args.jobs)
    defaults = find_defaults(plan.space, config)
    if defaults is not None:
        search.enqueue(defaults)
    return search


def require_same_plan(path: Path, plan: Plan) -> None:
    """Writes the plan, or checks that the folder's is the same.

    Raises:
        UserError: names what differs, or the file cannot be read or written.
    """
    values = json.loads(json.dumps(dataclasses.asdict(plan)))  # tuples as lists
    if not path.exists():
        cli.write_json(path, values)
        return
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        before: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); start again with another --out") from None
    changed = [name for name, value in values.items() if before.get(name) != value]
    if changed:
        raise UserError(
            f"{path}: this folder holds another search ({', '.join(changed)} differ); give the same "
            f"settings, or another --out"
        )


def find_study(
    search: "Search", plan: Plan, folder: Path, args: argparse.Namespace
) -> Study | None:
    """The study of the best trials against the default; None where it is not this machine's now."""
    from detector.study.search import list_best

    elsewhere = search.count_running_elsewhere()
    if elsewhere:
        print(
            f"{elsewhere} trial(s) run on other machines; the last one trains the best with fresh seeds"
        )
        return None
    config = load_config(args, ())
    defaults = find_defaults(plan.space, config)
    best = [t for t in list_best(search.study, args.top + 1) if t.params != defaults][: args.top]
    place = RunFolder(folder / "locks" / "confirm")
    with writing(place.path):
        place.path.mkdir(parents=True, exist_ok=True)
    if not best or place.is_locked():
        return None
    place.lock()
    arms = [Arm("default", ())]
    arms += [Arm(f"trial{trial.number}", format_words(trial.params)) for trial in best]
    return Study(
        cfg=plan.cfg,
        data=plan.data,
        weights=plan.weights,
        words=plan.words,
        arms=tuple(arms),
        seeds=tuple(range(FRESH_SEED, FRESH_SEED + args.fresh_seeds)),
        baseline="default",
    )


def confirm(study: Study, folder: Path, args: argparse.Namespace, limit: float | None) -> Any:
    """Trains the best trials and the default with fresh seeds; returns the answer, None without one.

    Raises:
        UserError: as a study's.
    """
    place = folder / "fresh"
    configs = ablate.load_configs(study, place)
    runner = ablate.make_runner(study, place, configs, args.jobs)
    runs = study.list_runs()
    print(f"fresh seeds: {runner.describe_budget(runs)}")
    open_study(place, study)
    if not runner.run(runs, time_limit=limit):
        print("stopped; the same command resumes the fresh runs")
    return ablate.write_answer(place, study, metric=args.metric)


def make_report(search: "Search", plan: Plan, answer: Any) -> SearchReport:
    """What the search has found so far."""
    from detector.study.search import find_importances, list_results

    where = f" on {plan.data}" if plan.data else ""
    words = f" ({' '.join(plan.words)})" if plan.words else ""
    return SearchReport(
        about=f"{plan.cfg}{where}{words}: {', '.join(each.key for each in plan.space)}",
        metric=search.metric,
        space=plan.space,
        trials=tuple(TrialResult(*row) for row in list_results(search.study)),
        importances=find_importances(search.study),
        answer=answer,
    )


def write_report(folder: Path, report: SearchReport, command: str) -> None:
    """Prints what the search found, and writes report.json, report.md and report.html.

    Raises:
        UserError: a file cannot be written.
    """
    print(f"\n{format_search_text(report)}\n")
    page = folder / "report.html"
    write_search_page(page, report, command)
    replace_text(folder / "report.md", format_search_markdown(report, command))
    cli.write_json(folder / "report.json", {"command": command, **report.as_json()})
    print(f"report: {page}, report.md and report.json beside it")


def format_tune_command(args: argparse.Namespace) -> str:
    """The command that makes the search."""
    words = ["--cfg", args.cfg, "--space", args.space]
    for name in ("data", "weights", "metric", "group_by"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", value]
    words += ["--trials", str(args.trials), "--top", str(args.top)]
    words += ["--fresh-seeds", str(args.fresh_seeds), "--out", args.out]
    return format_command("tune", *words, *args.overrides)


def parse_arguments() -> argparse.Namespace:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/tune.py --cfg yolov4-pacsp-n-mish.yaml --data digits.yaml "
        "--space ranges.yaml --trials 50 train.epochs=8",
    )
    option = parser.add_argument
    option("--cfg", metavar="YAML", required=True, help="a path, a name in configs/, or a .cfg")
    option("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    option("--weights", metavar="FILE", help="weights to start from, a .pt or a .weights")
    space_help = "ranges: a line `train.lr: {low: 0.001, high: 0.1, log: true}` for each key"
    option("--space", metavar="YAML", required=True, help=space_help)
    option("--trials", metavar="N", type=int, default=50, help="on all machines (default 50)")
    option("--metric", metavar="NAME", help="the objective (default AP; of classifiers top1)")
    holdout_help = "share of the training images that score the trials (default 0.2)"
    option("--holdout", metavar="SHARE", type=float, default=0.2, help=holdout_help)
    group_help = "images whose path matches alike are held out together: a regular expression"
    option("--group-by", metavar="REGEX", help=group_help)
    option("--sampler", choices=("tpe", "random"), default="tpe", help="(default tpe)")
    pruners = ("median", "hyperband", "none")
    option("--pruner", choices=pruners, default="median", help="(default median)")
    seed_help = "makes one machine's draws repeatable; several machines would draw alike"
    option("--sampler-seed", metavar="N", type=int, help=seed_help)
    option("--top", metavar="N", type=int, default=3, help="trials with fresh runs (default 3)")
    option("--fresh-seeds", metavar="N", type=int, default=5, help="of each (default 5)")
    storage_help = "where Optuna keeps the search (default sqlite in --out)"
    option("--storage", metavar="URL", help=storage_help)
    option("--jobs", metavar="N", type=int, default=1, help="trials at a time (default 1)")
    option("--time-limit", metavar="TIME", help="stop after TIME, resumable: 90s, 55m, 7.5h")
    option("--dry-run", action="store_true", help="check the settings and stop")
    option("--out", metavar="FOLDER", default="runs/tune", help="(default runs/tune)")
    option("overrides", nargs="*", metavar="key=value", help="for all trials")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    cli.run(main)
