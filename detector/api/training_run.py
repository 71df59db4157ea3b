"""A training run from its config to the AP of its best weights."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detector.api.run_request import RunRequest
from detector.api.summary import evaluate_classifier, evaluate_model, print_skipped
from detector.build import (
    build_data,
    build_hardware,
    build_image_store,
    build_observers,
    build_run_evaluator,
    build_trainer,
    choose_capture,
    find_label_problems,
    find_unlabelled_validation,
    require_batch_statistics,
    resolve_config,
)
from detector.config import Config, dump_config
from detector.engine import (
    MemoryFull,
    Observer,
    ProcessGroup,
    RunFolder,
    Stopped,
    require_trackers,
    stop_on_signals,
)
from detector.errors import UserError, explain, writing
from detector.evaluation import TopKEvaluator
from detector.weights.darknet import Weights
from detector.weights.load import load_model, read_weights
from detector.weights.transfer import adopt_settings, transfer


def start_run(request: RunRequest, process_group: ProcessGroup) -> "TrainingRun":
    """Builds a new run, from weights if the request or its config names some.

    Raises:
        UserError: whatever the user got wrong; nothing has been written yet.
    """
    config = request.load_config()
    return TrainingRun(config, process_group, request.load_weights(config))


class TrainingRun:
    """All parts of a run. Building them finds the user's mistakes before there is a folder.

    Attributes:
        config: with numbers in place of `auto`.
        hardware, data, evaluator, trainer: built from it.
        notes: what was printed about the run so far, for its manifest.
    """

    def __init__(
        self, config: Config, process_group: ProcessGroup, weights: Weights | None = None
    ) -> None:
        """
        Args:
            config: of the run.
            process_group: the ranks that train together.
            weights: to start from; None starts from random ones.

        Raises:
            UserError: something the config asks for is missing or does not fit.
        """
        require_trackers(config.train.log)
        self.notes: list[str] = []
        self.hardware = build_hardware(config)
        data = build_data(config)
        num_classes = len(data.names)
        if weights is not None:
            config = adopt_settings(config, weights, num_classes)
        config, data, notes = resolve_config(
            config, data, self.hardware, process_group, pretrained=weights is not None
        )
        require_batch_statistics(config, len(data.train), process_group.world_size)
        self.config = config
        self.evaluator = build_run_evaluator(config, data.val, self.hardware, process_group)
        store, cache_notes = build_image_store(config, data.train.reader, process_group)
        self.data = data.with_store(store)
        transfer_notes: list[str] = []

        def load_weights(model: nn.Module) -> None:
            if weights is not None:
                transfer_notes.append(transfer(model, weights, num_classes))

        self.trainer = build_trainer(
            config, self.data, self.evaluator, self.hardware, load_weights, process_group
        )
        if config.train.deterministic:
            notes.append("deterministic algorithms, CUBLAS_WORKSPACE_CONFIG=:4096:8")
        notes.append(choose_capture(config, self.hardware, process_group)[1])
        if weights is not None:
            transfer_notes = [*weights.notes, *transfer_notes]
        self._print_summary([*notes, *cache_notes, *transfer_notes])

    def report(self, *lines: str) -> None:
        """Prints lines and keeps them for the manifest; skips empty ones."""
        for line in filter(None, lines):
            print(line)
            self.notes.append(line)

    def create_folder(self, wanted: Path) -> RunFolder:
        """Creates and locks the folder of a new run and writes its config; the same on every rank.

        Raises:
            UserError: it cannot be created or written to.
        """
        process_group = self.trainer.process_group
        folder = RunFolder.create(wanted) if process_group.is_main else RunFolder(wanted)
        if process_group.is_main:
            with writing(folder.config):
                folder.config.write_text(dump_config(self.config), encoding="utf-8")
            folder.write_job_id()
            folder.lock()
        return process_group.broadcast(folder)

    def train_and_evaluate(
        self, folder: RunFolder, limits: Sequence[Observer], resume_hint: str
    ) -> float:
        """Trains to the end, then evaluates the best weights and returns their AP.

        Args:
            folder: of the run.
            limits: observers that may stop the training early.
            resume_hint: printed when the training stops early: the command that resumes it.

        Raises:
            UserError: something outside the program ended the run, such as a full disk.
            SystemExit: it was stopped by a limit (status 0) or a signal (128 + its number).
        """
        print(f"run folder: {folder.path}")
        if self.trainer.finished:
            epochs = self.trainer.schedule.epochs
            print(f"already finished: {self.trainer.progress.epoch} of {epochs} epochs")
        else:
            self._train(folder, limits, resume_hint)
        if self.trainer.process_group.is_main:
            print(self._evaluate_best(folder))
        return self.trainer.progress.best_ap

    def _evaluate_best(self, folder: RunFolder) -> str:
        """Evaluates the best weights, on this rank alone; returns a table."""
        val = self.data.val
        evaluator = build_run_evaluator(self.config, val, self.hardware)
        if isinstance(evaluator, TopKEvaluator):
            weights = read_weights(folder.best)
            return evaluate_classifier(weights, evaluator, self.hardware, folder.confusion)
        best = load_model(folder.best)
        return evaluate_model(best, str(folder.best), evaluator, val, self.hardware, folder.val)

    def _train(self, folder: RunFolder, limits: Sequence[Observer], resume_hint: str) -> None:
        observers = build_observers(self.config, self.data, folder, self.evaluator, self.notes)
        self.trainer.observers = [*observers, *limits]
        with stop_on_signals(self.trainer) as received:
            try:
                self.trainer.run()
            except Stopped as reason:
                print(f"stopped ({reason}); {resume_hint}")
                raise SystemExit(128 + received[0] if received else 0) from None
            except KeyboardInterrupt:
                print(f"stopped at once; {resume_hint}")
                raise
            except RuntimeError as error:
                explained = explain(error) or self.trainer.process_group.explain_error(error)
                if explained is None:
                    raise
                _add_resume_hint(explained, folder, resume_hint)
                raise explained from error
            except UserError as error:
                # a rank on another machine may not see the folder
                if isinstance(error, MemoryFull) and folder.path.is_dir():
                    folder.write_num_chunks(error.parts)
                _add_resume_hint(error, folder, resume_hint)
                raise

    def _print_summary(self, notes: Sequence[str]) -> None:
        """What the run is made of, what was assumed, and what is odd about its data."""
        config, data, world_size = self.config, self.data, self.trainer.process_group.world_size
        ranks = f", {world_size} ranks" if world_size > 1 else ""
        print(
            f"{config.model.arch}, {config.data.dataset}: {len(data.names)} classes, "
            f"{len(data.train)} training and {len(data.val)} validation images; "
            f"{self.hardware}{ranks}"
        )
        self.report(*data.notes, *notes)
        print_skipped([str(finding) for finding in data.findings if finding.skipped])
        self.report(*find_unlabelled_validation(data.val.reader.index))
        self.report(*find_label_problems(config, data))
        if config.train.freeze:
            print(self.trainer.options.frozen)


def _add_resume_hint(error: UserError, folder: RunFolder, resume_hint: str) -> None:
    """Adds a line to an error that ended a run: how to resume from its last checkpoint."""
    hint = f"the last good checkpoint is {folder.last}; {resume_hint}"
    error.args = (f"{error}\n{hint if folder.last.exists() else 'there is no checkpoint yet'}",)
