"""The folder of a run. An existing run is never overwritten."""

import glob
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from detector.errors import UserError, writing

_held: list[IO[str]] = []  # open for as long as this process lives


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run's files are."""

    path: Path

    @classmethod
    def create(cls, wanted: Path) -> "RunFolder":
        """Makes `wanted`, or `wanted-2`, `wanted-3` ... where there is such a folder with files.

        Raises:
            UserError: the folder cannot be made.
        """
        number = 1
        while True:
            path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if path.is_dir() and not any(path.iterdir()):
                    return cls(path)
                number += 1
                continue
            except OSError as error:
                raise UserError(f"{path}: cannot be made: {error.strerror}") from None
            return cls(path)

    @classmethod
    def find_newest(cls, runs: Path) -> "RunFolder":
        """The folder in `runs` whose last.pt is the youngest.

        Raises:
            UserError: none has one.
        """
        found = _youngest(cls(path) for path in runs.glob("*"))
        if found is None:
            raise UserError(f"{runs}: no run here has a last.pt to go on from; give its folder")
        return found

    @classmethod
    def find_newest_named(cls, wanted: Path) -> "RunFolder | None":
        """The youngest run that a command made which wants this folder: `wanted`, `wanted-2` ..."""
        name = re.compile(rf"{re.escape(wanted.name)}(-\d+)?")
        return _youngest(cls(p) for p in wanted.parent.glob("*") if name.fullmatch(p.name))

    @classmethod
    def find_by_job(cls, wanted: Path) -> "RunFolder | None":
        """The folder that this torchrun job made before torchrun started it anew (--max-restarts)."""
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            return None
        job = _job()
        return _youngest(
            cls(path.parent)
            for path in wanted.parent.glob(f"{glob.escape(wanted.name)}*/.job")
            if path.read_text(encoding="utf-8") == job
        )

    def write_job_id(self) -> None:
        """Notes which torchrun job this folder is of, for `find_by_job`."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            with writing(self.path / ".job"):
                (self.path / ".job").write_text(_job(), encoding="utf-8")

    def lock(self) -> None:
        """Makes this process the only one that trains here, until it ends, however it ends.

        Raises:
            UserError: another one does.
        """
        try:
            import fcntl  # not on Windows
        except ImportError:
            return
        path = self.path / ".lock"
        with writing(path):
            file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # the reader processes do not inherit it
        except BlockingIOError:
            with file:
                file.seek(0)
                who = file.read().strip()
            raise UserError(
                f"{self.path}: another process trains in this folder ({who}); wait for its end, or "
                f"stop it"
            ) from None
        except OSError:
            pass  # a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _held.append(file)

    @property
    def parts(self) -> int:
        """In how many parts batches are computed since the memory of one of the processes was full."""
        note = self.path / ".parts"
        return int(note.read_text(encoding="utf-8")) if note.exists() else 1

    def write_chunks(self, parts: int) -> None:
        """Notes it for the next attempt; any process may."""
        with writing(self.path / ".parts"):
            (self.path / ".parts").write_text(f"{parts}\n", encoding="utf-8")

    @property
    def best(self) -> Path:
        """The averaged weights with the best AP so far."""
        return self.path / "best.pt"

    @property
    def last(self) -> Path:
        """Everything a resumed run needs."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The one before `last`, should that be damaged."""
        return self.path / "previous.pt"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """What happened and when, a json object a line."""
        return self.path / "events.jsonl"

    @property
    def manifest(self) -> Path:
        """What the run is made of."""
        return self.path / "manifest.json"

    @property
    def train_batch(self) -> Path:
        """What the network saw first."""
        return self.path / "train_batch.jpg"

    @property
    def labels(self) -> Path:
        """The training labels, drawn."""
        return self.path / "labels.png"

    @property
    def curves(self) -> Path:
        """Losses, AP and learning rate, drawn."""
        return self.path / "curves.png"

    @property
    def val(self) -> Path:
        """Validation images with true and found boxes."""
        return self.path / "val.jpg"

    @property
    def results(self) -> Path:
        """One row an epoch."""
        return self.path / "results.csv"


def _youngest(folders: Iterable[RunFolder]) -> RunFolder | None:
    """Of those that have a checkpoint, the one that wrote last; None where none has."""
    ages = {
        folder: path.stat().st_mtime_ns
        for folder in folders
        for path in (folder.previous, folder.last)
        if path.exists()
    }
    return max(ages, key=ages.__getitem__, default=None)


def _job() -> str:
    """The name of the torchrun job, which stays when the processes are started anew."""
    return " ".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR"))
