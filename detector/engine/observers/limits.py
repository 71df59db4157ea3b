"""Observers that end a run early, after an optimizer step and with a checkpoint."""

import time

from detector.engine.observers.base import Observer, count_batches_done
from detector.engine.trainer import Trainer


class TimeLimit(Observer):
    """Stops the run at the first step that ends `seconds` from now, for queues that kill jobs."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def on_step(self, trainer: Trainer) -> None:
        """Stops the run once the time is up."""
        if time.monotonic() >= self._deadline:
            trainer.stop("time limit")


class BatchLimit(Observer):
    """Stops the run at the first step that completes `batches` batches."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def on_step(self, trainer: Trainer) -> None:
        """Stops the run once the batches are done."""
        if count_batches_done(trainer) >= self._batches:
            trainer.stop(f"after {self._batches} batches")
