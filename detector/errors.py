"""The exception for what a user can fix.

Commands turn a `UserError` into one line on stderr and exit status 2 (`detector.commands.cli`);
everything else is a bug and keeps its traceback.
"""

import contextlib
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


class UserError(ValueError):
    """A mistake or fault that the user can fix: what is wrong, what was expected, and the way out."""


class ProcessLost(UserError):
    """Another rank of the job has exited; its own output says why."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which `path` is written; turns an OSError, such as a full disk, into a UserError.

    Raises:
        UserError: names the file and what the system said.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def replace_text(path: Path, text: str) -> None:
    """Writes a whole file at once, so that others see the old or the new one; several may write it.

    Raises:
        UserError: the file or its folder cannot be written.
    """
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context in which files at `path` are read; turns an OSError into a UserError.

    Raises:
        UserError: names the file, or `path`, and what the system said.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else path
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from error


def read_regular_file(path: Path, *, hint: str = "", largest: int | None = None) -> bytes:
    """The content of a file that a user names.

    Args:
        path: the file. A FIFO or a device is refused: reading it might never end.
        hint: follows "no such file; ".
        largest: bytes; a larger file is refused.

    Raises:
        UserError: names the file, and why it cannot be read.
    """
    size = require_file(path, missing=f"no such file{hint and f'; {hint}'}")
    if largest is not None and size > largest:
        raise UserError(f"{path}: cannot be read: it has {size:,} bytes, more than {largest:,}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{path}: cannot be read: it is larger than the memory") from None


def require_file(path: Path, *, missing: str = "no such file") -> int:
    """The size of a file that a user names, bytes; `missing` is what is said where there is none.

    Opening a FIFO waits for its writer, and reading a device might never end: whatever opens a file
    without `read_regular_file` calls this first.

    Raises:
        UserError: names the file: it is missing, a folder, a device or a pipe.
    """
    shown = str(path)
    if "\0" in shown:
        raise UserError(f"{shown!r}: a file name cannot contain a NUL character")
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{shown}: {missing}") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise UserError(f"{shown}: cannot be read: it is {what}, not a file")
    return status.st_size


def raise_lost_worker(error: BaseException) -> None:
    """Raises the explanation of a killed data-loader worker, if that is what `error` is.

    torch raises it wherever the training process happens to be: in the middle of writing a file, or in a
    library. Whoever handles any error there calls this first.

    Raises:
        UserError: a worker was killed.
    """
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        explained = explain(error)
        if explained is not None:
            raise explained from error


def explain(error: RuntimeError) -> UserError | None:
    """Explains a RuntimeError of torch that is a fault of the machine; None for any other error.

    Known: a killed data-loader worker, full shared memory, a GPU out of memory.
    """
    text, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:  # how the worker died is in the chained error
        text, cause = f"{text}\n{cause}", cause.__cause__ or cause.__context__
    if type(error).__name__ == "OutOfMemoryError":
        return UserError(
            f"the GPU is out of memory: {text.splitlines()[0]}; try a smaller train.batch_size, "
            f"eval.batch_size or data.size"
        )
    if re.search(r"Bus error|</torch_.*No space left|shared memory limit|\(shm\)", text):
        return UserError(
            "shared memory is full: data-loader workers pass their images through it; enlarge it "
            "(docker run --shm-size=8g, or --ipc=host), or set a smaller data.workers (0 needs none)"
        )
    lost = re.search(r"DataLoader worker \(pid\S* ([\d, ]+)\)", text)
    if lost is not None:
        killed = re.search(r"killed by signal: (\w+)", text)
        how = f"was killed (signal: {killed[1]})" if killed else "exited unexpectedly"
        return UserError(
            f"data-loader worker {lost[1]} {how}, most often because the machine ran out of memory "
            f"(dmesg says so); set a smaller data.workers, since each worker needs memory of its own"
        )
    return None
