"""SIGINT and SIGTERM end a run after its step and its checkpoint: Ctrl-C, a scheduler, a spot machine."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from detector.engine.trainer import Trainer


@contextlib.contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Within it the first SIGINT or SIGTERM asks the trainer to stop; a second one ends it at once.

    Yields:
        The numbers of the signals that have come.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        trainer.stop(signal.Signals(number).name)

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
