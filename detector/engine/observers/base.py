"""The base class of all observers of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detector.engine.progress import EpochReport
from detector.structures import Batch

if TYPE_CHECKING:  # the trainer calls observers; they only read it
    from detector.engine.trainer import Trainer


class Observer:
    """Base of everything that looks on; every method does nothing."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Before each training batch."""

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Now and then: mean losses of the epoch up to batch `number`."""

    def on_event(self, trainer: Trainer, about: dict[str, Any]) -> None:
        """Whatever happens, by its name in about["event"]; see `Trainer.announce`."""

    def on_gradients(self, trainer: Trainer) -> None:
        """Before an optimiser step: gradients as they are, still scaled by `trainer.scaler`."""

    def on_step(self, trainer: Trainer) -> None:
        """After an optimiser step: a place from which a run can go on."""

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Before the evaluation of an epoch, all its batches done."""

    def on_stop(self, trainer: Trainer) -> None:
        """Before the run ends because somebody asked for it."""

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """After each epoch and its evaluation."""

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """At the very end: "finished", "stopped: REASON" or "failed: ERROR", which goes on after this.

        It must not raise, so that it hides no error.
        """
