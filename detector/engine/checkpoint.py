"""Checkpoints: plain dicts of tensors and values, loadable without running any code."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from detector.errors import UserError

FORMAT = "detector-1"  # of the dict; another one is refused
NEEDED = ("format", "config", "names", "weights")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint: the old file stays whole until the new one is on the disk.

    Args:
        path: of the file; its folder exists.
        content: "config" (plain dict), "names" (class names), "weights" (a state dict), and more.
    """
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; nothing in the file is executed.

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
    missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: not a checkpoint of this toolkit: it has no {missing[0]!r}")
    if content["format"] != FORMAT:
        raise UserError(f"{path}: has format {content['format']!r}; this version reads {FORMAT!r}")
    return content


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
