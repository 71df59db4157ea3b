"""Train a detector, then print COCO's twelve numbers of the best weights."""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detector.api.summary import (
    evaluate_model,
    print_skipped,
    require_same_classes,
    require_same_data,
)
from detector.build import (
    build_data,
    build_evaluator,
    build_hardware,
    build_image_store,
    build_observers,
    build_trainer,
    describe_data,
    find_label_problems,
    resolve_anchors,
    resolve_batch_size,
)
from detector.commands import cli
from detector.config import (
    Config,
    changed_keys,
    config_from_dict,
    dump_config,
    load_config,
    replace_values,
)
from detector.config.duration import seconds
from detector.engine import (
    BatchLimit,
    MemoryFull,
    Observer,
    ProcessGroup,
    RunFolder,
    Stopped,
    TimeLimit,
    load_newest,
    require_trackers,
    stop_on_signals,
)
from detector.errors import UserError, explain, writing
from detector.weights.darknet import DarknetOptions, Weights, read_config
from detector.weights.load import load_model, read_weights
from detector.weights.transfer import adopt, transfer


def main() -> None:
    args = arguments()
    limits: list[Observer] = []  # the clock starts here, for all seeds
    if args.time_limit is not None:
        limits.append(TimeLimit(seconds(args.time_limit)))
    if args.batch_limit is not None:
        limits.append(BatchLimit(args.batch_limit))
    process_group = ProcessGroup.initialize()
    if not process_group.is_main:
        cli.silence()
    try:
        scores = [train(args, process_group, limits, seed) for seed in args.seeds or [None]]
        if args.seeds:
            print(summary(args.seeds, scores))
    finally:
        process_group.destroy()


def arguments() -> argparse.Namespace:
    """The words of the command line.

    Raises:
        UserError: they contradict each other.
    """
    parser = cli.parser(
        __doc__ or "",
        "python tools/train.py --cfg yolov4-pacsp-mish.yaml --data coco.yaml train.epochs=100",
    )
    parser.add_argument("--cfg", metavar="YAML", help="a path, a name in configs/, or a .cfg")
    parser.add_argument("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    parser.add_argument("--weights", metavar="FILE", help="start from a .pt or a .weights")
    parser.add_argument("--out", metavar="FOLDER", help="of the run; default runs/NAME-OF-CFG")
    parser.add_argument("--name", help="of the run: --out runs/NAME")
    parser.add_argument(
        "--seeds",
        metavar="N",
        nargs="+",
        default=[],
        help="one run after the other with each train.seed, in folders NAME-seedN",
    )
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        nargs="?",
        const="",
        help="go on with the run in this folder; without one with the newest in runs/; beside --cfg "
        "with what the same command has begun: what is finished is not repeated, what is missing starts",
    )
    parser.add_argument(
        "--time-limit", metavar="TIME", help="stop after so long, resumable: 90s, 55m, 7.5h"
    )
    parser.add_argument(
        "--batch-limit", metavar="N", type=int, help="stop after so many batches, resumable"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. model.activation=relu"
    )
    cli.add_short_flags(parser)
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()
    args.overrides += [word for word in args.seeds if "=" in word]  # they may follow its numbers
    args.seeds = [word for word in args.seeds if "=" not in word]
    if "=" in (args.resume or "") and not Path(args.resume).exists():  # the next word is no folder
        args.overrides, args.resume = [*args.overrides, args.resume], ""
    args.overrides = cli.words_of(args)
    require_consistent(args)
    return args


def require_consistent(args: argparse.Namespace) -> None:
    """Ends where words of the command line contradict each other.

    Raises:
        UserError: they do.
    """
    seeds = args.seeds
    if not all(word.isdecimal() for word in seeds) or len(set(seeds)) < len(seeds):
        raise UserError("--seeds takes whole numbers, each once: --seeds 0 1 2")
    if args.cfg is None and args.resume is None:
        raise UserError("give --cfg to start a run, or --resume to go on with one")
    others = (args.cfg, args.overrides, args.data, args.out, args.name, args.weights, seeds)
    if args.resume and any(others):
        raise UserError(
            f"--resume {args.resume} goes on with that run as it is; it takes no settings"
        )
    if args.cfg is None and any(others):
        raise UserError(
            "--resume goes on with the newest run as it is; it takes no settings, unless --cfg and all "
            "other words of a command say which run is meant"
        )
    if args.out and args.name:
        raise UserError("--out and --name set the same thing; give one of them")
    if seeds and any(word.startswith("train.seed=") for word in args.overrides):
        raise UserError("--seeds and train.seed= set the same thing; give one of them")
    if args.batch_limit is not None and args.batch_limit < 1:
        raise UserError(f"--batch-limit {args.batch_limit}: expected 1 or more")


def train(
    args: argparse.Namespace,
    process_group: ProcessGroup,
    limits: Sequence[Observer],
    seed: str | None,
) -> float:
    """A run to its end -> the AP of its best weights."""
    begun = folder_to_go_on_with(args, process_group, seed)
    if begun is not None:
        run = resumed(begun, process_group, wanted_config(args, seed) if args.cfg else None)
        return run.go(begun, limits, way_on(args, begun))
    run = started(args, process_group, seed)
    folder = run.begin(folder_wanted(args, seed))
    return run.go(folder, limits, way_on(args, folder))


def way_on(args: argparse.Namespace, folder: RunFolder) -> str:
    """The command that goes on after a run was stopped: with it, or with all seeds."""
    words = ["--resume", str(folder.path)]
    if args.seeds:
        words = [word for word in sys.argv[1:] if word != "--resume"] + ["--resume"]
    return f"go on with: python tools/train.py {shlex.join(words)}"


def summary(seeds: list[str], scores: list[float]) -> str:
    """A line on runs that differ in their seed."""
    spread = f", standard deviation {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    each = "  ".join(f"{s}: {score:.4f}" for s, score in zip(seeds, scores, strict=True))
    return f"AP by seed  {each}  mean {statistics.mean(scores):.4f}{spread}"


def folder_wanted(args: argparse.Namespace, seed: str | None) -> Path:
    """Where a new run goes; a number is appended where there is one already."""
    path = Path(args.out or Path("runs", args.name or Path(args.cfg).stem))
    return path if seed is None else path.with_name(f"{path.name}-seed{seed}")


def folder_to_go_on_with(
    args: argparse.Namespace, process_group: ProcessGroup, seed: str | None
) -> RunFolder | None:
    """That of --resume, or of a job that torchrun has started anew; None for a new run."""
    if args.resume is None:
        return process_group.broadcast(RunFolder.of_job(folder_wanted(args, seed)))
    if args.cfg is not None:
        return process_group.broadcast(RunFolder.newest_of(folder_wanted(args, seed)))
    if not args.resume:
        return process_group.broadcast(RunFolder.newest(Path("runs")))
    path = Path(args.resume)
    return RunFolder(path.parent if path.suffix == ".pt" else path)


def wanted_config(args: argparse.Namespace, seed: str | None) -> Config:
    """What the command line says."""
    words = list(args.overrides)
    if seed is not None:
        words.append(f"train.seed={seed}")
    if args.weights is not None:
        words.append(f"train.weights={json.dumps(str(Path(args.weights).resolve()))}")
    return read_config(args.cfg, words, data=args.data)


def started(args: argparse.Namespace, process_group: ProcessGroup, seed: str | None) -> "Run":
    """A run from the command line's config, and from weights where it names some."""
    config, weights = wanted_config(args, seed), None
    if config.train.weights is not None:
        options = DarknetOptions.of(args)
        auto = config.model.anchors == "auto"
        plain = replace_values(config, {"model.anchors": None}) if auto else config
        weights = read_weights(Path(config.train.weights), plain, options)
    return Run(config, process_group, weights)


def resumed(folder: RunFolder, process_group: ProcessGroup, wanted: Config | None) -> "Run":
    """A run as its last checkpoint left it.

    Raises:
        UserError: it has no state, other settings than are `wanted`, or other data now, or somebody
            trains in it.
    """
    if process_group.is_main and folder.path.is_dir():
        folder.hold()  # before its state is read
    state, damaged = load_newest(folder.last, folder.previous)
    if "training" not in state:
        raise UserError(f"{folder.last}: it holds weights only; a run goes on from its last.pt")
    config = config_from_dict(state["config"], str(folder.last))
    changed = changed_keys(config, wanted) if wanted else []
    if changed:
        raise UserError(
            f"{folder.path}: it has other settings than this command ({'; '.join(changed)}); without "
            f"--resume a new run starts"
        )
    run = Run(config, process_group)
    require_same_classes(str(folder.last), state["names"], run.data.names)
    run.say(damaged, *edits(folder, config))
    now = describe_data(run.data)
    run.say(*require_same_data(str(folder.last), state.get("data", {}), now))
    run.say(*run.trainer.load_state_dict(state["training"]))
    progress = run.trainer.progress
    progress.parts = max(progress.parts, process_group.broadcast(folder.parts))
    if not run.trainer.finished:
        print(f"going on in epoch {progress.epoch + 1} after batch {progress.batch}")
    return run


def edits(folder: RunFolder, config: Config) -> list[str]:
    """A line if somebody has changed a run's config.yaml, in vain."""
    try:
        changed = changed_keys(config, load_config(str(folder.config)))
    except UserError as error:
        changed = [str(error)]
    if not changed:
        return []
    return [f"{folder.config} is not read, the checkpoint has the settings ({'; '.join(changed)})"]


class Run:
    """The parts of a run; building them finds what is wrong before there is a folder."""

    def __init__(
        self, config: Config, process_group: ProcessGroup, weights: Weights | None = None
    ) -> None:
        require_trackers(config.train.log)
        self.notes: list[str] = []
        self.hardware = build_hardware(config)
        self.data = build_data(config)
        if weights is not None:
            config = adopt(config, weights, len(self.data.names))
        config, found = resolve_anchors(config, self.data.train.reader.index)
        classes = len(self.data.names)
        config, fitted = resolve_batch_size(config, classes, self.hardware, process_group)
        self.config = config
        self.evaluator = build_evaluator(config, self.data.val, self.hardware, process_group)
        table: list[str] = []

        def start(model: nn.Module) -> None:
            if weights is not None:
                table.append(transfer(model, weights, len(self.data.names)))

        store, kept = build_image_store(config, self.data.train.reader, process_group)
        self.data = self.data.with_store(store)
        self.trainer = build_trainer(
            config, self.data, self.evaluator, self.hardware, start, process_group
        )
        together = f", {process_group.world_size} ranks" if process_group.world_size > 1 else ""
        print(
            f"{config.model.arch}, {config.data.dataset}: {len(self.data.names)} classes, "
            f"{len(self.data.train)} training and {len(self.data.val)} validation images; "
            f"{self.hardware}{together}"
        )
        notes = weights.notes if weights else []
        if config.train.deterministic:
            fitted.append("deterministic algorithms, CUBLAS_WORKSPACE_CONFIG=:4096:8")
        self.say(*self.data.notes, *found, *fitted, *kept, *notes, *table)
        print_skipped([str(f) for f in self.data.findings if f.skipped])
        self.say(*find_label_problems(config, self.data))
        if config.train.freeze:
            print(self.trainer.frozen)

    def say(self, *lines: str) -> None:
        """Prints lines, and keeps them for the manifest; empty ones are none."""
        said = [line for line in lines if line]
        for line in said:
            print(line)
        self.notes += said

    def begin(self, wanted: Path) -> RunFolder:
        """The folder of a new run, with what it writes first."""
        process_group = self.trainer.process_group
        folder = RunFolder.create(wanted) if process_group.is_main else RunFolder(wanted)
        if process_group.is_main:
            with writing(folder.config):
                folder.config.write_text(dump_config(self.config), encoding="utf-8")
            folder.remember_job()
            folder.hold()
        return process_group.broadcast(folder)

    def go(self, folder: RunFolder, limits: Sequence[Observer], way_on: str) -> float:
        """Trains what is left, then evaluates the best weights; their AP.

        `way_on`: says how it goes on after a stop.
        """
        print(f"run folder: {folder.path}")
        if self.trainer.finished:
            epochs = self.trainer.schedule.epochs
            print(f"it has finished: {self.trainer.progress.epoch} of {epochs} epochs")
        else:
            self._train(folder, limits, way_on)
        if self.trainer.process_group.is_main:
            best = load_model(folder.best)
            evaluator = build_evaluator(self.config, self.data.val, self.hardware)
            print(
                evaluate_model(
                    best, str(folder.best), evaluator, self.data.val, self.hardware, folder.val
                )
            )
        return self.trainer.progress.best_ap

    def _train(self, folder: RunFolder, limits: Sequence[Observer], way_on: str) -> None:
        observers = build_observers(self.config, self.data, folder, self.evaluator, self.notes)
        self.trainer.observers = [*observers, *limits]
        with stop_on_signals(self.trainer) as received:
            try:
                self.trainer.run()
            except Stopped as reason:
                print(f"stopped ({reason}); {way_on}")
                raise SystemExit(128 + received[0] if received else 0) from None
            except KeyboardInterrupt:
                print(f"stopped at once; {way_on}")
                raise
            except RuntimeError as error:
                explained = explain(error) or self.trainer.process_group.explain_error(error)
                if explained is None:
                    raise
                add_way_on(explained, folder, way_on)
                raise explained from error
            except UserError as error:
                if isinstance(error, MemoryFull) and folder.path.is_dir():  # else another machine's
                    folder.remember_parts(error.parts)
                add_way_on(error, folder, way_on)
                raise


def add_way_on(error: UserError, folder: RunFolder, way_on: str) -> None:
    """Adds a line to an error that ended a run: the command that goes on from the last checkpoint."""
    way = f"the last good checkpoint is {folder.last}; {way_on}"
    error.args = (f"{error}\n{way if folder.last.exists() else 'there is no checkpoint yet'}",)


if __name__ == "__main__":
    cli.run(main)
