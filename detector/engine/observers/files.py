"""Files that a run writes: results.csv, events.jsonl, checkpoints, a picture of the first batch."""

import csv
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.engine.checkpoint import save_checkpoint
from detector.engine.observers.base import Observer
from detector.engine.progress import EpochReport
from detector.engine.run_folder import RunFolder
from detector.engine.trainer import Trainer
from detector.errors import writing
from detector.structures import Batch
from detector.visualize.draw import caption_batch, contact_sheet, save_image


class CsvLog(Observer):
    """results.csv: a row for each epoch that is done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, trainer: Trainer) -> None:
        """Drops the rows of epochs that a resumed run repeats."""
        self._write(trainer)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Rewrites the file with the new row, which may bring new columns."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        rows = trainer.progress.history
        if not (rows and trainer.process_group.is_main):
            return
        columns = dict.fromkeys(name for row in rows for name in row)
        new = self.path.with_suffix(".new")
        with writing(self.path), new.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns), restval="")
            writer.writeheader()
            writer.writerows(
                {name: _format_value(name, value) for name, value in row.items()} for row in rows
            )
        new.replace(self.path)


def _format_value(name: str, value: float) -> str:
    """A value of results.csv: metrics with six decimals, lr and losses with six digits."""
    if name == "epoch":
        return str(int(value))
    if name == "seconds":
        return f"{value:.2f}"
    return f"{value:.6g}" if name == "lr" or name.startswith("loss_") else f"{value:.6f}"


class EventLog(Observer):
    """events.jsonl: a JSON object on a line of its own for each event, in order, with the time.

    An epoch that a resumed run repeats has the lines of both attempts; results.csv has it once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, trainer: Trainer) -> None:
        """Ends a line that a kill or a full disk left incomplete."""
        if not trainer.process_group.is_main:
            return
        with writing(self.path), self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def on_event(self, trainer: Trainer, event: dict[str, Any]) -> None:
        """Appends a line and closes the file, so that no line is lost if the run is killed."""
        if trainer.process_group.is_main:
            line = json.dumps({"time": round(time.time(), 3), **event})
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """How often last.pt is written within an epoch; if both are 0, only at the end of each.

    Attributes:
        steps: optimizer steps between two checkpoints; 0 is off.
        seconds: seconds between two checkpoints; 0 is off.
    """

    steps: int = 0
    seconds: float = 0.0


class CheckpointSaver(Observer):
    """Writes last.pt before and after each evaluation and at intervals, best.pt after the best epoch.

    best.pt holds the EMA weights, the config and the class names: what validation and detection need.
    last.pt also holds the training state; the file that it replaces is kept as previous.pt.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        config: dict[str, Any],
        names: tuple[str, ...],
        data: dict[str, Any] | None = None,
        every: CheckpointInterval = CheckpointInterval(),
    ) -> None:
        """`data`: a description of the data, which a resumed run compares with its own."""
        self.folder, self.every = folder, every
        self.common = {"config": config, "names": list(names), "data": data or {}}
        self._steps, self._written = 0, time.monotonic()

    def on_step(self, trainer: Trainer) -> None:
        """Writes last.pt if it is due; rank 0 decides for all, since every rank takes part."""
        self._steps += 1
        due = bool(self.every.steps) and self._steps % self.every.steps == 0
        if self.every.seconds:
            late = time.monotonic() - self._written >= self.every.seconds
            due = due or trainer.process_group.any(late and trainer.process_group.is_main)
        if due:
            self._save_last(trainer, "now and then")

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Writes last.pt, so that an error in the evaluation loses no training."""
        self._save_last(trainer, "before evaluation")

    def on_stop(self, trainer: Trainer) -> None:
        """Writes last.pt, from which the run resumes."""
        self._save_last(trainer, "stopped")

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Writes best.pt if the epoch is the best, then last.pt.

        In this order: a run that is killed between the two resumes before the epoch's end and writes
        best.pt again.
        """
        if report.best and trainer.process_group.is_main:
            trainer.announce("checkpoint", file=self.folder.best.name, why="best")
            save_checkpoint(self.folder.best, self._collect(trainer, report.metrics))
        self._save_last(trainer, "epoch", report.metrics)

    def _collect(self, trainer: Trainer, metrics: dict[str, float]) -> dict[str, Any]:
        return {
            **self.common,
            "weights": trainer.ema.module.state_dict(),
            "epoch": trainer.progress.epoch,
            "metrics": metrics,
        }

    def _save_last(
        self, trainer: Trainer, why: str, metrics: dict[str, float] | None = None
    ) -> None:
        state = trainer.state_dict()
        if trainer.process_group.is_main:
            content = {**self._collect(trainer, metrics or {}), "training": state}
            trainer.announce("checkpoint", file=self.folder.last.name, why=why)
            save_checkpoint(self.folder.last, content, previous=self.folder.previous)
            trainer.announce("written", file=self.folder.last.name)
        self._written = time.monotonic()


class LastEvaluation(Observer):
    """Keeps what the evaluation after the last epoch found in each image."""

    def __init__(self, save: Callable[[], None]) -> None:
        """`save`: writes the newest evaluation."""
        self.save = save

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Saves the evaluation of the last epoch."""
        last = report.epoch + 1 == report.epochs
        if last and report.metrics and trainer.process_group.is_main:
            self.save()


class TrainBatchPicture(Observer):
    """A picture of the first training batch as the network gets it, with its boxes."""

    def __init__(
        self,
        path: Path,
        names: tuple[str, ...],
        log_image: Callable[[Trainer, str, np.ndarray], None] | None = None,
    ) -> None:
        """
        Args:
            path: of the picture.
            names: of the classes.
            log_image: is called with trainer, name and picture, uint8 [H, W, 3].
        """
        self.path, self.names, self.log_image = path, names, log_image

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Draws the first batch, unless the picture exists."""
        if number or self.path.exists() or not trainer.process_group.is_main:
            return
        sheet = contact_sheet(caption_batch(batch, self.names))
        save_image(self.path, sheet)
        if self.log_image is not None:
            self.log_image(trainer, "train_batch", sheet)
