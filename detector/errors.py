"""The one exception that a person, not a programmer, has to read.

Commands turn a `UserError` into one line on stderr and exit status 2 (`detector.cli`); everything
else is a bug and keeps its traceback.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path


class UserError(ValueError):
    """Something the user can mend: the message names the thing, what was expected, and the way out."""


class ProcessLost(UserError):
    """Another process of the run has ended; why is said there."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it a file is written; a disk that is full, or read only, is explained.

    Raises:
        UserError: names the file and what the system said.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def explain(error: RuntimeError) -> UserError | None:
    """What an error of the machine means that torch reports as one of the program; None for others.

    A process that reads images was killed, or the memory that it shares with this one is full, or a
    GPU's memory is.
    """
    text, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:  # torch says first that a worker is gone, and there how it went
        text, cause = f"{text}\n{cause}", cause.__cause__ or cause.__context__
    if type(error).__name__ == "OutOfMemoryError":
        return UserError(
            f"the GPU's memory is full: {text.splitlines()[0]}; try a smaller train.batch_size, "
            f"eval.batch_size or data.size"
        )
    if re.search(r"Bus error|</torch_.*No space left|shared memory limit|\(shm\)", text):
        return UserError(
            "the shared memory, through which data workers hand over their images, is full: give it more "
            "(docker run --shm-size=8g, or --ipc=host), or set a smaller data.workers; 0 needs none"
        )
    lost = re.search(r"DataLoader worker \(pid\S* ([\d, ]+)\)", text)
    if lost is not None:
        killed = re.search(r"killed by signal: (\w+)", text)
        how = f"was killed (signal: {killed[1]})" if killed else "has ended unexpectedly"
        return UserError(
            f"data worker {lost[1]} {how}: mostly because the machine's memory was full, which dmesg "
            f"then says; set a smaller data.workers, each of which needs memory of its own"
        )
    return None
