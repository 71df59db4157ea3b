"""The folder of a run: creating, finding and locking it, and the names of its files."""

import glob
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from detector.errors import UserError, read_regular_file, writing

_lock_files: list[IO[str]] = []  # kept open, and so locked, until this process ends


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run; an existing one is never overwritten."""

    path: Path

    @classmethod
    def create(cls, wanted: Path) -> "RunFolder":
        """Creates `wanted`; `wanted-2`, `wanted-3` ... if it exists and is not empty.

        Raises:
            UserError: the folder cannot be created.
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
                raise UserError(f"{path}: cannot be created: {error.strerror}") from None
            return cls(path)

    @classmethod
    def find_newest(cls, runs: Path) -> "RunFolder":
        """The folder in `runs` whose last.pt is the newest.

        Raises:
            UserError: there is no last.pt in any of them.
        """
        folder = _find_newest(cls(path) for path in runs.glob("*"))
        if folder is None:
            raise UserError(f"{runs}: no run here has a last.pt to resume from; name a run folder")
        return folder

    @classmethod
    def find_newest_named(cls, wanted: Path) -> "RunFolder | None":
        """The newest of `wanted`, `wanted-2`, `wanted-3` ... that has a checkpoint; None without any."""
        name = re.compile(rf"{re.escape(wanted.name)}(-\d+)?")
        return _find_newest(cls(p) for p in wanted.parent.glob("*") if name.fullmatch(p.name))

    @classmethod
    def find_by_job(cls, wanted: Path) -> "RunFolder | None":
        """The folder that this torchrun job created before torchrun restarted it (--max-restarts)."""
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            return None
        job = _read_job_id()
        return _find_newest(
            cls(path.parent)
            for path in wanted.parent.glob(f"{glob.escape(wanted.name)}*/.job")
            if path.read_text(encoding="utf-8") == job
        )

    def write_job_id(self) -> None:
        """Records the torchrun job of this folder, for `find_by_job`."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            with writing(self.path / ".job"):
                (self.path / ".job").write_text(_read_job_id(), encoding="utf-8")

    def lock(self) -> None:
        """Locks the folder for this process until it ends, so that no other one trains in it.

        Raises:
            UserError: another process has locked it.
        """
        try:
            import fcntl  # not on Windows
        except ImportError:
            return
        path = self.path / ".lock"
        with writing(path):
            file = path.open("a+", encoding="utf-8")
        try:
            # lockf, since data-loader workers do not inherit its locks
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read().strip()
            raise UserError(
                f"{self.path}: another process is training in this folder ({owner}); wait until it "
                f"ends, or stop it"
            ) from None
        except OSError:
            pass  # the file system has no locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _lock_files.append(file)

    def is_locked(self) -> bool:
        """Whether another process trains in the folder; False where the file system has no locks."""
        path = self.path / ".lock"
        try:
            import fcntl  # not on Windows

            with path.open("a+", encoding="utf-8") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return False
        return False

    @property
    def num_chunks(self) -> int:
        """The number of chunks per batch since a rank ran out of memory; 1 if none has."""
        note = self.path / ".parts"
        if not note.exists():
            return 1
        word = read_regular_file(note).strip()
        if not re.fullmatch(rb"[1-9][0-9]{0,5}", word):
            raise UserError(f"{note}: expected a number of chunks; delete this file")
        return int(word)

    def write_num_chunks(self, num_chunks: int) -> None:
        """Records the number of chunks for the resumed run; any rank may call it."""
        with writing(self.path / ".parts"):
            (self.path / ".parts").write_text(f"{num_chunks}\n", encoding="utf-8")

    @property
    def best(self) -> Path:
        """The checkpoint of the EMA weights with the best AP so far."""
        return self.path / "best.pt"

    @property
    def last(self) -> Path:
        """The checkpoint with everything that a resumed run needs."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before `last`, used if `last` is damaged."""
        return self.path / "previous.pt"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """The events of the run with their times, a JSON object per line."""
        return self.path / "events.jsonl"

    @property
    def manifest(self) -> Path:
        """Config, versions, hardware and data of the run."""
        return self.path / "manifest.json"

    @property
    def train_batch(self) -> Path:
        """A picture of the first training batch."""
        return self.path / "train_batch.jpg"

    @property
    def confusion(self) -> Path:
        """A classifier's confusion matrix."""
        return self.path / "confusion.csv"

    @property
    def labels(self) -> Path:
        """A picture of the training labels' statistics."""
        return self.path / "labels.png"

    @property
    def curves(self) -> Path:
        """A plot of losses, AP and learning rate."""
        return self.path / "curves.png"

    @property
    def val(self) -> Path:
        """A picture of validation images with ground truth and detections."""
        return self.path / "val.jpg"

    @property
    def evaluation(self) -> Path:
        """What the evaluation after the last epoch found in each image."""
        return self.path / "evaluation.npz"

    @property
    def results(self) -> Path:
        """Losses and metrics, a row per epoch."""
        return self.path / "results.csv"


def _find_newest(folders: Iterable[RunFolder]) -> RunFolder | None:
    """The folder with the newest checkpoint; None if none has one."""
    ages = {
        folder: path.stat().st_mtime_ns
        for folder in folders
        for path in (folder.previous, folder.last)
        if path.exists()
    }
    return max(ages, key=ages.__getitem__, default=None)


def _read_job_id() -> str:
    """The id of the torchrun job, which survives restarts."""
    return " ".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR"))
