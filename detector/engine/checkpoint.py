"""Checkpoints: plain dicts of tensors and values, loadable without running any code.

A file is complete or absent: it is written under another name, synced to the disk, and then renamed.
A digest of its content detects corruption.
"""

import contextlib
import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.engine.checkpoint_content import (
    REMEDY,
    reading_checkpoint,
    require_plain,
    require_schema,
)
from detector.errors import UserError, raise_lost_worker, require_file

VERSION = 2
FORMAT = f"detector-{VERSION}"
FIRST_WITH_DIGEST = 2  # the first version whose files have a digest


def save_checkpoint(path: Path, content: dict[str, Any], *, previous: Path | None = None) -> None:
    """Writes a checkpoint; the old file is intact until the new one is on the disk.

    Args:
        path: of the file; its folder exists.
        content: "config" (plain dict), "names" (class names), "weights" (a state dict) and more;
            nested dicts, lists, tensors, strings and numbers. "format" and "digest" of a file that was
            read with torch.load are made anew.
        previous: where the file that is now at `path` is kept; `path` always exists meanwhile.

    Raises:
        UserError: the disk is full or not writable, or a data-loader worker was killed meanwhile; both
            files are unchanged.
    """
    content = _move_to_cpu({k: v for k, v in content.items() if k not in ("format", "digest")})
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            torch.save({"format": FORMAT, "digest": digest(content), **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep_as(path, previous)
        new.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if a write fails
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise_lost_worker(error)
        reason = getattr(error, "strerror", None) or _find_os_error(error) or str(error)
        before = "the previous one is intact" if path.exists() else "there is none yet"
        raise UserError(f"{path}: the checkpoint cannot be written: {reason}; {before}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU, in the current format; nothing in the file is executed.

    Raises:
        UserError: missing, damaged, malformed, or not a checkpoint of this toolkit.
    """
    require_file(path, missing="no such checkpoint")
    with reading_checkpoint(path):
        _refuse_compressed_records(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on tensors that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
            require_plain(content, path)
        if not isinstance(content, dict) or not str(content.get("format")).startswith("detector-"):
            raise UserError(f"{path}: not a checkpoint of this toolkit: it has no 'format'")
        content = _migrate(path, content)
        require_schema(content, path)
    return content


def _refuse_compressed_records(path: Path) -> None:
    """Refuses a zip file whose records take more memory than the file has bytes; torch compresses none.

    Raises:
        UserError: it has such records.
        zipfile.BadZipFile: it is not a zip file.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if any(entry.compress_type for entry in entries) or size > path.stat().st_size:
        raise UserError(
            f"{path}: malformed: its records are compressed, or claim more than the file; {REMEDY}"
        )


def load_newest(last: Path, previous: Path) -> tuple[dict[str, Any], Path, str]:
    """The checkpoint at `last` or, where that is missing or damaged, the one before it.

    Returns:
        Its content, its path, and a line on why the older one was loaded; "" if it was not.

    Raises:
        UserError: neither can be loaded; the message is that of `last`.
    """
    try:
        return load_checkpoint(last), last, ""
    except UserError as error:
        try:
            content = load_checkpoint(previous)
        except UserError:
            raise error from None
        line = f"{error}; resuming from {previous.name}, the checkpoint before it"
        return content, previous, line


def digest(value: Any) -> str:
    """A hash of nested dicts, lists, tensors, strings and numbers: of all bits, in their order."""
    state = hashlib.blake2b(digest_size=16)
    _digest_into(state, value)
    return state.hexdigest()


def _digest_into(state: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        state.update(f"dict {len(value)}".encode())
        for key, item in value.items():
            _digest_into(state, key)
            _digest_into(state, item)
    elif isinstance(value, list | tuple):
        state.update(f"{type(value).__name__} {len(value)}".encode())
        for item in value:
            _digest_into(state, item)
    else:
        state.update(f"{type(value).__name__} {value!r}".encode())


def _move_to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _move_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_move_to_cpu(item) for item in value)
    return value


def _keep_as(path: Path, previous: Path) -> None:
    """Makes `previous` a second name of the file at `path`, which is never missing at `path`."""
    link = previous.with_name(previous.name + ".new")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links: there is no file at `path` for a moment
        path.replace(previous)
        return
    link.replace(previous)


def _sync_folder(folder: Path) -> None:
    """Syncs the names of the files to the disk, on systems that can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _find_os_error(error: BaseException | None) -> str | None:
    """The message of the first OSError in a chain of exceptions."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        error = error.__cause__ or error.__context__
    return None


def _migrate(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Checks and removes the digest, and converts the content to the current format.

    Raises:
        UserError: written by a newer version, of an unknown format, or damaged.
    """
    name = str(content["format"])
    match = re.fullmatch(r"detector-([0-9]{1,4})", name)
    number = int(match[1]) if match else 0
    if number > VERSION:
        raise UserError(f"{path}: format {name!r} needs a newer version of this toolkit; update it")
    if number < 1:
        raise UserError(f"{path}: unknown format {name!r}; expected {FORMAT!r} or an older one")
    content = {key: value for key, value in content.items() if key != "format"}
    written = content.pop("digest", None)
    expected = digest(content) if number >= FIRST_WITH_DIGEST else None
    if written != expected:
        raise UserError(
            f"{path}: damaged: its content does not match its digest (if it was edited on purpose, "
            f"write it again with detector.engine.save_checkpoint)"
        )
    for older in range(number, VERSION):
        content = _MIGRATIONS[older](content)
    return {"format": FORMAT, **content}


def _migrate_from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 was written at the end of epochs only, had no digest and, at first, no generators."""
    training = content.get("training")
    if not isinstance(training, dict) or not isinstance(training.get("progress"), dict):
        return content
    progress = {
        "batch": 0,
        "best_ap": -1.0,
        "totals": [],
        "images": 0,
        "seconds": 0.0,
        "unreadable": [],
        **training["progress"],
    }
    generators = [training["generators"]] if "generators" in training else []  # one per rank
    training = {"scaler": {}, **training, "progress": progress, "generators": generators}
    return {**content, "training": training}


# Number of a format -> a function from its content to that of the next format.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _migrate_from_1}


def load_weights(model: torch.nn.Module, weights: dict[str, Any], source: str) -> None:
    """Loads a state dict into a model with exactly the same names and shapes.

    Raises:
        UserError: they differ; names the first difference.
    """
    require_same_shapes(model, weights, source)
    model.load_state_dict(weights)


def require_same_shapes(model: torch.nn.Module, weights: dict[str, Any], source: str) -> None:
    """Checks that a state dict fits a model, which may be on the device "meta".

    Raises:
        UserError: names, shapes or kinds of numbers differ; names the first difference.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shared = [name for name in own if name in weights]
    reshaped = [n for n in shared if _describe(own[n]) != _describe(weights[n])]
    if not (missing or unexpected or reshaped):
        return
    if reshaped:
        name = reshaped[0]
        expected = _describe(own[name]).removeprefix("shape ")
        first = f"{name} has {_describe(weights[name])}, expected {expected}"
    else:
        first = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unexpected"
    raise UserError(
        f"{source}: weights of another model: {first} "
        f"({len(missing) + len(unexpected) + len(reshaped)} differences)"
    )


def _describe(value: Any) -> str:
    """Shape and kind of a tensor; floating-point numbers of any precision can be loaded."""
    if not isinstance(value, Tensor):
        return f"a value of type {type(value).__name__}"
    kind = "" if value.is_floating_point() else f" of {value.dtype}".replace("torch.", "")
    return f"shape {list(value.shape)}{kind}"
