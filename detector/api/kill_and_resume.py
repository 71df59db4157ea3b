"""Kills training runs at random instants and resumes them, to test that nothing is lost."""

import contextlib
import csv
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.engine import RunFolder, load_checkpoint
from detector.engine.checkpoint import digest
from detector.errors import UserError

PHASES: tuple[str, ...] = ("step", "checkpoint", "evaluation", "epoch end")


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """The events of a run; skips the last line of events.jsonl if a kill cut it short."""
    events = []
    lines = folder.events.read_text("utf-8").splitlines() if folder.events.exists() else []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def find_phase(event: dict[str, Any]) -> str:
    """The phase of a run after this event, one of `PHASES`."""
    if event["event"] == "evaluation":
        return "evaluation"
    if event["event"] == "epoch" or event.get("why") in ("best", "epoch"):
        return "epoch end"
    return "checkpoint" if event["event"] == "checkpoint" else "step"


def measure_phases(events: list[dict[str, Any]]) -> dict[str, float]:
    """The median duration of each phase, seconds."""
    durations: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for event, following in itertools.pairwise(events):
        durations[find_phase(event)].append(following["time"] - event["time"])
    return {phase: statistics.median(times) for phase, times in durations.items()}


@dataclass(frozen=True, slots=True)
class TrainCommand:
    """Starts and resumes a run as a process of its own.

    Attributes:
        command: the command line without arguments.
        words: the arguments of a new run.
        environment: of the process.
        own_session: whether a Ctrl-C in the terminal does not reach it.
    """

    command: Sequence[str]
    words: Sequence[str]
    environment: dict[str, str]
    own_session: bool = False

    def start(self, folder: RunFolder) -> subprocess.Popen[bytes]:
        """Starts a new run in the folder, or resumes the one there."""
        resume = folder.last.exists() or folder.previous.exists()
        words = (
            ["--resume", str(folder.path)] if resume else [*self.words, "--out", str(folder.path)]
        )
        if not resume and folder.path.exists():  # killed before its first checkpoint
            shutil.rmtree(folder.path)
        with (folder.path.parent / f"{folder.path.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.command, *words],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=self.own_session,
            )


def kill_process_tree(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all its descendants by SIGKILL; returns when none of them is running.

    torchrun starts each rank in a session of its own, which a signal to its process group does not reach.
    """
    process.send_signal(signal.SIGSTOP)  # or it could start another process meanwhile
    tree = [process.pid]
    for pid in tree:  # grows during the loop
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                tree += map(int, children.read_text().split())
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(map(is_running, tree)):
        time.sleep(0.001)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_in_phase(
    process: subprocess.Popen[bytes], folder: RunFolder, phase: str, after: float
) -> str:
    """Kills a run some time after the start of a phase.

    Args:
        process, folder: of the run.
        phase: one of `PHASES`, or "any" for the start of the process.
        after: seconds.

    Returns:
        The phase that the kill hit: "start" before the first event, "" if the run had already ended.
    """
    before = len(read_events(folder))
    while phase != "any" and process.poll() is None:
        events = read_events(folder)
        if len(events) > before and find_phase(events[-1]) == phase:
            break
        time.sleep(0.001)
    end = time.monotonic() + after
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)
    ended = process.poll() is not None
    kill_process_tree(process)
    if ended:
        return ""
    events = read_events(folder)
    return find_phase(events[-1]) if len(events) > before else "start"


def read_outcome(folder: RunFolder) -> tuple[str, list[dict[str, str]]]:
    """A digest of all weights and of the optimizer, and the rows of results.csv without their times."""
    training = load_checkpoint(folder.last)["training"]
    state = {name: training[name] for name in ("model", "average", "optimizer", "scaler")}
    with folder.results.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return digest(state), rows


def wait_for_end(process: subprocess.Popen[bytes], folder: RunFolder) -> None:
    """Waits until a run has finished.

    Raises:
        UserError: it failed, though nobody killed it.
    """
    if process.wait() != 0:
        raise UserError(
            f"the run failed without being killed; see {folder.path.parent}/{folder.path.name}.log"
        )


@dataclass(frozen=True, slots=True)
class KillPlan:
    """How often and where runs are killed.

    Attributes:
        kills: in all.
        each: inside each phase, at least.
        seed: of the random instants.
    """

    kills: int
    each: int
    seed: int


@dataclass(slots=True)
class KillReport:
    """The outcome of the kills.

    Attributes:
        hits: number of kills by phase; "" counts those that came after the run had ended.
        kills: number that hit a running process.
        victims: the killed and resumed runs, all of which have finished.
    """

    hits: Counter[str]
    kills: int
    victims: list[RunFolder]


def kill_and_resume(
    train: TrainCommand,
    plan: KillPlan,
    out: Path,
    *,
    duration: float,
    phases: dict[str, float],
    epochs: int,
    bar: Any,
) -> KillReport:
    """Kills and resumes runs by a plan until each of them has finished.

    Args:
        train: starts the runs.
        plan: how often and where to kill.
        out: the folder of all runs.
        duration: of an uninterrupted run, seconds.
        phases: their durations, from `measure_phases`.
        epochs: of a finished run.
        bar: a progress bar with `total` and `update`.
    """
    draw = random.Random(plan.seed)
    report = KillReport(Counter(), 0, [RunFolder(out / "victim-1")])
    total = plan.kills
    while report.kills < total:
        victim = report.victims[-1]
        missing = [phase for phase in PHASES for _ in range(plan.each - report.hits[phase])]
        phase = draw.choice(missing) if len(missing) >= total - report.kills else "any"
        after = draw.uniform(0, duration if phase == "any" else phases[phase])
        hit = kill_in_phase(train.start(victim), victim, phase, after)
        report.hits[hit] += 1
        report.kills += bool(hit)
        bar.update(bool(hit))
        if not hit:  # it had finished before the kill
            report.victims.append(RunFolder(out / f"victim-{len(report.victims) + 1}"))
        if report.kills == total and missing and len(missing) > (hit in missing):
            total += 1  # until each phase has been hit often enough
            bar.total = total
    last = report.victims[-1]
    if not last.results.exists() or len(read_outcome(last)[1]) < epochs:
        wait_for_end(train.start(last), last)
    return report
