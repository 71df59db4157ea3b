"""SIGINT (Ctrl-C) and SIGTERM (a scheduler, a spot instance) end a run with a checkpoint."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from detector.engine.trainer import Trainer


@contextlib.contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """A context in which the first SIGINT or SIGTERM stops the trainer after its step, another at once.

    Yields:
        The numbers of the signals received so far.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        trainer.stop(signal.Signals(number).name)

    previous = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
