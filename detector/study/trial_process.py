"""The training of a trial: a process of its own in its run folder, which can be stopped and resumed."""

import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from detector.api.kill_and_resume import TrainCommand
from detector.engine import RunFolder
from detector.engine.observers.manifest import read_manifest
from detector.study.collect import FINISHED, read_rows
from detector.study.runner import GRACE, Machine

LOG_LINES = 4  # shown of a trial that failed
State = Literal["running", "finished", "failed"]


class Training(Protocol):
    """A training that is under way."""

    def get_state(self) -> State:
        """Whether it has ended, and how."""
        ...

    def read_scores(self) -> dict[int, float]:
        """The objective by epoch, counted from 1."""
        ...

    def read_log(self) -> list[str]:
        """The last lines that it printed."""
        ...

    def stop(self) -> None:
        """Ends it; it can be resumed."""
        ...


class Launcher(Protocol):
    """Starts trainings."""

    def __call__(self, number: int, words: Sequence[str], slot: int) -> Training:
        """Starts trial `number` with `key=value` words, or resumes it, in one of the places."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessLauncher:
    """Trains in processes.

    Attributes:
        folder: of the search.
        command: the command line that trains, before its arguments.
        arguments: of all trials, such as `--cfg` and `--data`.
        words: `key=value` of all trials.
        metric: the column of results.csv that is the objective.
        machine: whose GPUs and cores are shared out.
        jobs: processes at a time.
        environment: of the processes.
    """

    folder: Path
    command: Sequence[str]
    arguments: Sequence[str]
    words: Sequence[str]
    metric: str
    machine: Machine
    jobs: int
    environment: Mapping[str, str]

    def __call__(self, number: int, words: Sequence[str], slot: int) -> "TrialProcess":
        """As `Launcher`."""
        folder = find_trial_folder(self.folder, number)
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        command = TrainCommand(
            command=self.command,
            words=[*self.arguments, *self.words, *words],
            environment={**self.environment, **self.machine.make_environment(slot, self.jobs)},
            own_session=True,  # or a Ctrl-C would reach it twice
        )
        return TrialProcess(folder, command.start(folder), self.metric)


@dataclass(slots=True)
class TrialProcess:
    """A `Training` in a process.

    Attributes:
        folder: of its run.
        process: that trains.
        metric: the column of results.csv that is the objective.
    """

    folder: RunFolder
    process: subprocess.Popen[bytes]
    metric: str

    def get_state(self) -> State:
        """As `Training`."""
        status = self.process.poll()
        if status is None:
            return "running"
        sessions = read_manifest(self.folder.manifest).get("sessions") or [{}]
        done = status == 0 and sessions[-1].get("outcome") == FINISHED
        return "finished" if done else "failed"

    def read_scores(self) -> dict[int, float]:
        """As `Training`."""
        if not self.folder.results.exists():
            return {}
        rows = read_rows(self.folder.results)
        scores = {int(row["epoch"]): row.get(self.metric, math.nan) for row in rows}
        return {epoch: score for epoch, score in scores.items() if not math.isnan(score)}

    def read_log(self) -> list[str]:
        """As `Training`."""
        path = self.folder.path.with_name(f"{self.folder.path.name}.log")
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]

    def stop(self) -> None:
        """As `Training`; it writes a checkpoint first."""
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_trial_folder(folder: Path, number: int) -> RunFolder:
    """The run folder of a trial in the folder of its search."""
    return RunFolder(folder / "trials" / f"trial{number:04d}")
