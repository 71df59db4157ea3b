"""Checkpoints: plain dicts of tensors and values, loadable without running any code.

A file is whole or it is not there: it is written beside its place, brought to the disk, and then
renamed. A digest of everything inside finds what a disk or a cable has changed.
"""

import contextlib
import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.errors import UserError

VERSION = 2
FORMAT = f"detector-{VERSION}"
NEEDED = ("config", "names", "weights")


def save_checkpoint(path: Path, content: dict[str, Any], *, previous: Path | None = None) -> None:
    """Writes a checkpoint: the old file stays whole until the new one is on the disk.

    Args:
        path: of the file; its folder exists.
        content: "config" (plain dict), "names" (class names), "weights" (a state dict), and more; of
            dicts, lists, tensors, strings and numbers.
        previous: where the file that is now at `path` goes; there is always one at `path`.

    Raises:
        UserError: the disk is full, or cannot be written to. Both files are as they were.
    """
    content = _on_the_cpu(content)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            torch.save({"format": FORMAT, "digest": digest(content), **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        new.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a failing write
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or _first_oserror(error) or str(error)
        before = "the one before it is whole" if path.exists() else "there is none yet"
        raise UserError(f"{path}: the checkpoint cannot be written: {reason}; {before}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; nothing in the file is executed. Older formats are brought up.

    Raises:
        UserError: missing, damaged, or not a checkpoint of this toolkit.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strange files; they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError):
        raise UserError(
            f"{path}: not a checkpoint, damaged, or one that would run code when loaded; expected a "
            f"best.pt or last.pt that tools/train.py wrote"
        ) from None
    if not isinstance(content, dict) or not str(content.get("format")).startswith("detector-"):
        raise UserError(f"{path}: not a checkpoint of this toolkit: it has no 'format'")
    content = _brought_up(path, content)
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise UserError(f"{path}: not a checkpoint of this toolkit: it has no {missing[0]!r}")
    return content


def load_newest(last: Path, previous: Path) -> tuple[dict[str, Any], str]:
    """The checkpoint at `last` or, where that is missing or damaged, the one before it.

    Returns:
        Its content, and a line that says why it is the older one; empty where it is not.

    Raises:
        UserError: neither can be used; the message is that of `last`.
    """
    try:
        return load_checkpoint(last), ""
    except UserError as error:
        try:
            return load_checkpoint(previous), f"{error}; going on from {previous.name} before it"
        except UserError:
            raise error from None


def digest(value: Any) -> str:
    """A fingerprint of dicts, lists, tensors, strings and numbers: of every bit, and of the order."""
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


def _on_the_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_the_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_the_cpu(item) for item in value)
    return value


def _keep(path: Path, previous: Path) -> None:
    """The file at `path` becomes `previous` as well; a link, so that it is never missing at `path`."""
    link = previous.with_name(previous.name + ".new")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links: for a moment there is `previous` only
        path.replace(previous)
        return
    link.replace(previous)


def _sync_folder(folder: Path) -> None:
    """Brings the names of the files to the disk, too; where the system knows of such a thing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_oserror(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        error = error.__cause__ or error.__context__
    return None


def _brought_up(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The content in today's format; its digest is checked and taken off.

    Raises:
        UserError: from a newer version, of no known format, or damaged.
    """
    name = str(content["format"])
    number = int(name.removeprefix("detector-")) if name[9:].isdigit() else 0
    if number > VERSION:
        raise UserError(f"{path}: has format {name!r}, of a newer version of this toolkit")
    if number < 1:
        raise UserError(f"{path}: has format {name!r}; this version reads {FORMAT!r} and before")
    content = {key: value for key, value in content.items() if key != "format"}
    written = content.pop("digest", None)
    if written is not None and written != digest(content):
        raise UserError(
            f"{path}: damaged: its content is not what was written (a file that was changed on purpose "
            f"must not keep its 'digest')"
        )
    for older in range(number, VERSION):
        content = _MIGRATIONS[older](content)
    return {"format": FORMAT, **content}


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 was written at the end of epochs only, and had no digest."""
    if "training" not in content:
        return content
    training = dict(content["training"])
    old = training["progress"]
    training["progress"] = {
        "epoch": old["epoch"],
        "batch": 0,
        "best_ap": old["best_ap"],
        "totals": {},
        "images": 0,
        "seconds": 0.0,
        "unreadable": [],
    }
    training["generators"] = [training["generators"]]  # of each process
    return {**content, "training": training}


# Number of a format -> content of that format to content of the next.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def load_weights(model: torch.nn.Module, weights: dict[str, Any], source: str) -> None:
    """Loads a state dict into a model that has to fit exactly.

    Raises:
        UserError: another model's; names the first difference.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    foreign = [name for name in weights if name not in own]
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or foreign or other:
        if other:
            name = other[0]
            first = f"{name} is {list(weights[name].shape)}, not {list(own[name].shape)}"
        else:
            first = f"it lacks {missing[0]}" if missing else f"it has {foreign[0]}"
        raise UserError(
            f"{source}: weights of another model: {first} "
            f"({len(missing) + len(foreign) + len(other)} differences)"
        )
    model.load_state_dict(weights)
