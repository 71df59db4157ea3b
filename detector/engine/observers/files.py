"""Who looks on: console, results.csv, a picture of the first batch, checkpoints."""

import csv
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detector.engine.checkpoint import save_checkpoint
from detector.engine.observers.base import Observer
from detector.engine.observers.curves_log import Speed, batches_seen
from detector.engine.progress import EpochReport
from detector.engine.run_folder import RunFolder
from detector.engine.trainer import Trainer
from detector.errors import writing
from detector.structures import Batch
from detector.visualize.draw import caption_batch, contact_sheet, save_image


class Console(Observer):
    """A progress bar with losses, speed, memory and what is left of the run, and one line an epoch."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._speed = Speed()
        self._told: set[str] = set()

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Moves the bar; a new one at the first batch of an epoch."""
        if self._bar is None:
            self._bar = tqdm(
                total=len(trainer.loader),
                desc=f"epoch {epoch + 1}/{trainer.schedule.epochs}",
                unit="batch",
                leave=False,
                disable=None,  # off where the output is not a terminal
                dynamic_ncols=True,
            )
        self._bar.update(number + 1 - self._bar.n)
        self._speed.batch(len(batch) * trainer.process_group.world_size)

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Shows the numbers beside the bar. `left`: of all epochs' training, without evaluations."""
        rates = self._speed.look()
        if self._bar is None or rates is None:
            return
        images, batches = rates
        left = trainer.schedule.epochs * len(trainer.loader) - batches_seen(trainer)
        self._bar.set_postfix(
            {
                **{name: f"{value:.4f}" for name, value in losses.items()},
                "images/s": f"{images:.1f}",
                "GB": f"{trainer.hardware.peak_memory() / 1e9:.1f}",
                "left": tqdm.format_interval(left / batches),
            }
        )

    def on_event(self, trainer: Trainer, about: dict[str, Any]) -> None:
        """Says what was survived."""
        if about["event"] == "not finite" and trainer.progress.skipped_in_row <= trainer.skip_limit:
            tqdm.write(
                f"step left out, the {trainer.progress.skipped}. of this run: {about['text']}"
            )
        elif about["event"] == "split":
            tqdm.write(
                f"the memory of {trainer.hardware.device} is full: from here on batches are computed in "
                f"{about['parts']} parts of up to {about['images']} images, with the same gradients but "
                f"for BatchNorm, whose statistics are then those of a part"
            )

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """The line that stays."""
        self._close()
        for line in sorted(trainer.progress.unreadable - self._told):
            tqdm.write(f"left out: {line}")
            self._told.add(line)
        parts = [f"epoch {report.epoch + 1:3d}/{report.epochs}"]
        parts += [f"{name} {value:.4f}" for name, value in report.losses.items()]
        if report.metrics:
            parts.append(f"AP {report.metrics['AP']:.3f}  AP50 {report.metrics['AP50']:.3f}")
        parts.append(f"{report.seconds:.0f} s{'  best' if report.best else ''}")
        tqdm.write("  ".join(parts))
        if trainer.out_of_patience:
            tqdm.write(f"no better AP in {trainer.progress.stale} evaluations: training ends here")

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """Takes the bar away."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._speed.begin()


class CsvLog(Observer):
    """results.csv: a row for each epoch that the run knows of, no more and no less."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, trainer: Trainer) -> None:
        """A run that goes on drops rows of epochs after its checkpoint."""
        self._write(trainer)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Rewrites the file with the new row, so that its columns always fit."""
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
                {name: _shown(name, value) for name, value in row.items()} for row in rows
            )
        new.replace(self.path)


def _shown(name: str, value: float) -> str:
    """A value of results.csv: metrics with six decimals, all else with six digits."""
    if name == "epoch":
        return str(int(value))
    if name == "seconds":
        return f"{value:.1f}"
    return f"{value:.6g}" if name == "lr" or name.startswith("loss_") else f"{value:.6f}"


class TrainBatchPicture(Observer):
    """A picture of the first training batch: what the network really sees."""

    def __init__(
        self, path: Path, names: tuple[str, ...], show: Callable[..., None] | None = None
    ) -> None:
        """`show`: trainer, name and picture, for others who take pictures."""
        self.path, self.names, self.show = path, names, show

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Draws the very first batch of a run, once."""
        if number or self.path.exists() or not trainer.process_group.is_main:
            return
        sheet = contact_sheet(caption_batch(batch, self.names))
        save_image(self.path, sheet)
        if self.show is not None:
            self.show(trainer, "train_batch", sheet)


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """How often a checkpoint is written besides those of the epochs: after so many optimiser steps, or
    so many seconds; 0 of both is never.
    """

    steps: int = 0
    seconds: float = 0.0


class CheckpointSaver(Observer):
    """last.pt after every epoch, before its evaluation, now and then between; best.pt after the best.

    best.pt holds the averaged weights, the config and the class names: all that validation and
    detection need. last.pt holds the run's whole state besides; the one before it stays beside it.
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
        """`data`: what is known of the data, for a run that goes on to compare."""
        self.folder, self.every = folder, every
        self.about = {"config": config, "names": list(names), "data": data or {}}
        self._steps, self._written = 0, time.monotonic()

    def on_step(self, trainer: Trainer) -> None:
        """Writes last.pt where it is time. All processes write together, as the first decides."""
        self._steps += 1
        due = bool(self.every.steps) and self._steps % self.every.steps == 0
        if self.every.seconds:
            late = time.monotonic() - self._written >= self.every.seconds
            due = due or trainer.process_group.any(late and trainer.process_group.is_main)
        if due:
            self._save_last(trainer, "now and then")

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """So that a fault in the evaluation costs no training."""
        self._save_last(trainer, "before evaluation")

    def on_stop(self, trainer: Trainer) -> None:
        """The run goes on from here."""
        self._save_last(trainer, "stopped")

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Writes the files; best.pt first, which a run that goes on would write again."""
        if report.best and trainer.process_group.is_main:
            trainer.announce("checkpoint", file=self.folder.best.name, why="best")
            save_checkpoint(self.folder.best, self._content(trainer, report.metrics))
        self._save_last(trainer, "epoch", report.metrics)

    def _content(self, trainer: Trainer, metrics: dict[str, float]) -> dict[str, Any]:
        return {
            **self.about,
            "weights": trainer.average.module.state_dict(),
            "epoch": trainer.progress.epoch,
            "metrics": metrics,
        }

    def _save_last(
        self, trainer: Trainer, why: str, metrics: dict[str, float] | None = None
    ) -> None:
        state = trainer.state_dict()
        if trainer.process_group.is_main:
            content = {**self._content(trainer, metrics or {}), "training": state}
            trainer.announce("checkpoint", file=self.folder.last.name, why=why)
            save_checkpoint(self.folder.last, content, previous=self.folder.previous)
            trainer.announce("written", file=self.folder.last.name)
        self._written = time.monotonic()


class EventLog(Observer):
    """events.jsonl: what happened and when, an object a line, in the order in which it did.

    A run that went on after a fault has the lines of both; results.csv has each epoch once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, trainer: Trainer) -> None:
        """Ends a line that a kill or a full disk has cut short."""
        if not trainer.process_group.is_main:
            return
        with writing(self.path), self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def on_event(self, trainer: Trainer, about: dict[str, Any]) -> None:
        """Appends a line, at once."""
        if trainer.process_group.is_main:
            line = json.dumps({"time": round(time.time(), 3), **about})
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


class TimeLimit(Observer):
    """Asks for an end at the first step so many seconds from now, for queues that end a job by force."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def on_step(self, trainer: Trainer) -> None:
        """Looks at the clock."""
        if time.monotonic() >= self._end:
            trainer.stop("time limit")


class BatchLimit(Observer):
    """Asks for an end at the first step after so many batches of the run."""

    def __init__(self, batches: int) -> None:
        self._end = batches

    def on_step(self, trainer: Trainer) -> None:
        """Counts."""
        if batches_seen(trainer) >= self._end:
            trainer.stop(f"after {self._end} batches")
