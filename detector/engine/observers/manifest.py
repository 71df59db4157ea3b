"""manifest.json: config, versions, hardware and data of a run, to reproduce it."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import torch

from detector.device import Hardware
from detector.engine.checkpoint import digest
from detector.engine.observers.base import Observer
from detector.engine.trainer import Trainer
from detector.errors import read_regular_file, writing
from detector.ops import implementation_table

PACKAGES = ("detector", "torch", "torchvision", "numpy", "pillow", "pycocotools", "albumentations")
CHECKOUT = Path(__file__).parents[3]


def collect_versions() -> dict[str, str]:
    """The versions of Python and of the packages that the numbers depend on, by name."""
    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if torch.version.cuda:
        versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    return versions


def read_git_state(checkout: Path = CHECKOUT) -> dict[str, Any] | None:
    """{"commit", "dirty": whether tracked files differ} of a checkout; None without git."""
    if not (checkout / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(checkout), *words],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None  # git is not installed, or does not trust the folder
    return {"commit": commit, "dirty": bool(changes)}


def describe_hardware(hardware: Hardware, world_size: int) -> dict[str, Any]:
    """Device, precision, CPU, threads and number of ranks."""
    gpu = hardware.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(hardware.device) if gpu else str(hardware.device),
        "precision": hardware.precision,
        "processes": world_size,
        "cpu": _read_cpu_name(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def _read_cpu_name() -> str:
    """The CPU's name, or its architecture if the name is unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def collect_kernels() -> dict[str, dict[str, str]]:
    """The implementation of each operator: operator -> "device dtype" -> "compiled" or "torch"."""
    table: dict[str, dict[str, str]] = {}
    for row in implementation_table():
        place = f"{row['device']} {row['dtype']}"
        table.setdefault(row["op"], {})[place] = row["implementation"]
    return table


class Manifest(Observer):
    """Writes manifest.json at the start and end of each session: the start of a run or a resume.

    {"config": ..., "sessions": [{"started", "ended", "outcome", "command", "from", "weights" (a digest),
    "versions", "git", "hardware", "kernels", "data", "notes", "warnings" ...}]}. A session whose process
    was killed has neither "ended" nor "outcome".
    """

    def __init__(
        self,
        path: Path,
        *,
        config: dict[str, Any],
        data: dict[str, Any],
        notes: Sequence[str] = (),
    ) -> None:
        """
        Args:
            path: of the file.
            config: the resolved config, as plain values.
            data: a description of the data, as plain values.
            notes: the lines printed before training started.
        """
        self.path, self.config, self.data, self.notes = path, config, data, list(notes)
        self._sessions: list[dict[str, Any]] = []

    def on_start(self, trainer: Trainer) -> None:
        """Adds a session."""
        if not trainer.process_group.is_main:
            return
        trainer.hardware.reset_peak_memory()
        progress = trainer.progress
        weights = {name: value.cpu() for name, value in trainer.model.state_dict().items()}
        session = {
            "started": _now(),
            "ended": None,
            "outcome": None,
            "command": list(sys.orig_argv),
            "from": {"epoch": progress.epoch + 1, "batch": progress.batch},
            "weights": digest(weights),
            "versions": collect_versions(),
            "git": read_git_state(),
            "hardware": describe_hardware(trainer.hardware, trainer.process_group.world_size),
            "kernels": collect_kernels(),
            "data": self.data,
            "notes": self.notes,
        }
        self._sessions = [*read_manifest(self.path).get("sessions", []), session]
        with writing(self.path):
            self._write()

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """Completes the session."""
        if not (trainer.process_group.is_main and self._sessions):
            return
        progress = trainer.progress
        self._sessions[-1] |= {
            "ended": _now(),
            "outcome": outcome,
            "epochs_done": progress.epoch,
            "best_ap": progress.best_ap if progress.best_ap >= 0 else None,
            "peak_memory": trainer.hardware.peak_memory() or None,  # bytes
            "warnings": {
                "unreadable images": len(progress.unreadable),
                "steps left out": progress.skipped,
                "parts of a batch, for want of memory": progress.chunks,
            },
        }
        with contextlib.suppress(OSError):  # a full disk must not hide the error that ended the run
            self._write()

    def _write(self) -> None:
        """Replaces the file only once the new one is complete."""
        new = self.path.with_suffix(".new")
        text = json.dumps({"config": self.config, "sessions": self._sessions}, indent=1)
        new.write_text(text + "\n", encoding="utf-8")
        new.replace(self.path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest; {} if it is missing or unreadable."""
    try:
        content = json.loads(read_regular_file(path))
    except (ValueError, RecursionError):  # a UserError is a ValueError
        return {}
    return content if isinstance(content, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
