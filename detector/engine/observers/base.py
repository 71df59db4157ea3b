"""The base class of all observers of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detector.engine.progress import EpochReport
from detector.structures import Batch

if TYPE_CHECKING:  # the trainer calls observers; they only read it
    from detector.engine.trainer import Trainer


class Observer:
    """Base class of observers; each method does nothing by default.

    All methods are called on every rank, in the order of the trainer's observers.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first epoch of this process, of a new or a resumed run."""

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Before each training batch; `epoch` and `number` are counted from 0."""

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Every few batches: the mean losses of the epoch up to batch `number`."""

    def on_event(self, trainer: Trainer, event: dict[str, Any]) -> None:
        """At each event; event["event"] is its name, see `Trainer.announce`."""

    def on_gradients(self, trainer: Trainer) -> None:
        """Before an optimizer step; the gradients are still scaled by `trainer.scaler`."""

    def on_step(self, trainer: Trainer) -> None:
        """After an optimizer step, where a checkpoint can be saved."""

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """After the last batch of an epoch, before its evaluation."""

    def on_stop(self, trainer: Trainer) -> None:
        """Before a run that was asked to stop ends."""

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """After each epoch and its evaluation."""

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """When training ends: "finished", "stopped: REASON" or "failed: ERROR".

        It must not raise, or it would hide the error that ended the run.
        """


def count_batches_done(trainer: Trainer) -> int:
    """The number of batches whose optimizer step is done, over all epochs."""
    return trainer.progress.epoch * len(trainer.loader) + trainer.progress.batch
