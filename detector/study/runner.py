"""Runs what is not finished in a study: several processes at a time, each resumable at any point."""

import contextlib
import math
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.api.kill_and_resume import TrainCommand
from detector.config.duration import format_duration
from detector.errors import UserError
from detector.study.collect import collect_run, count_epochs
from detector.study.plan import Run, Study, find_run_folder, make_request
from detector.study.study_metrics import find_metrics

POLL = 0.2  # seconds
GRACE = 120.0  # seconds that a stopped run has to write its checkpoint
STATUS_EVERY = 60.0  # seconds between two lines of progress
THREAD_VARIABLES: tuple[str, ...] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
LOG_LINES = 4  # shown of a run that failed


@dataclass(frozen=True, slots=True)
class Machine:
    """What the runs of a study share.

    Attributes:
        gpus: the entries of CUDA_VISIBLE_DEVICES; empty trains on the CPU.
        cores: CPU cores.
    """

    gpus: tuple[str, ...]
    cores: int

    @classmethod
    def detect(cls, num_gpus: int) -> "Machine":
        """This machine, of which torch sees `num_gpus` GPUs."""
        named = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word]
        names = named if len(named) >= num_gpus else list(map(str, range(num_gpus)))
        affinity = getattr(os, "sched_getaffinity", None)
        return cls(tuple(names[:num_gpus]), len(affinity(0)) if affinity else os.cpu_count() or 1)

    def make_environment(self, slot: int, jobs: int) -> dict[str, str]:
        """The variables of the process in a slot: its GPU, by turns, and its share of the cores.

        Args:
            slot: in 0 .. `jobs` - 1.
            jobs: processes at a time.
        """
        threads = str(max(self.cores // jobs, 1))
        variables = dict.fromkeys(THREAD_VARIABLES, threads)
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return variables

    def describe(self, jobs: int) -> str:
        """What `jobs` processes get, for the budget."""
        threads = max(self.cores // jobs, 1)
        cpu = f"{threads} CPU thread{'s' if threads > 1 else ''} each"
        if not self.gpus:
            return f"{jobs} at a time on the CPU, {cpu}"
        gpus = f"{len(self.gpus)} GPU{'s' if len(self.gpus) > 1 else ''}"
        return f"{jobs} at a time on {gpus}, {cpu}"


@dataclass(slots=True)
class Job:
    """A run that is being trained.

    Attributes:
        run: of the study.
        slot: which of the places it occupies.
        process: that trains it.
        epochs_before: finished before this process began.
    """

    run: Run
    slot: int
    process: subprocess.Popen[bytes]
    epochs_before: int


@dataclass(slots=True)
class Runner:
    """Trains runs of a study in processes of their own.

    Attributes:
        study, folder: the study and its folder.
        command: the command line that trains, before its arguments.
        machine: whose GPUs and cores are shared out.
        jobs: processes at a time.
        epochs: of a run, by the name of its arm.
        environment: of the processes.
        failed: runs whose process ended with an error.
    """

    study: Study
    folder: Path
    command: Sequence[str]
    machine: Machine
    jobs: int
    epochs: Mapping[str, int]
    environment: Mapping[str, str]
    failed: list[Run] = field(default_factory=list)
    _jobs: list[Job] = field(default_factory=list)
    _epochs_done: int = 0
    _started: float = 0.0

    def run(self, runs: Sequence[Run], *, time_limit: float | None = None) -> bool:
        """Trains the runs that are not finished; prints a line as each ends, and now and then.

        Args:
            runs: in the order in which they begin.
            time_limit: seconds after which all are stopped, resumable; None: none.

        Returns:
            Whether the end was reached; False if the time was up.

        Raises:
            SystemExit: stopped by a signal, after the runs have written their checkpoints.
        """
        waiting = [run for run in runs if not self.is_finished(run)]
        self._started = reported = time.monotonic()
        self._epochs_done = 0
        with terminate_by_exception():
            try:
                while waiting or self._jobs:
                    if time_limit is not None and time.monotonic() - self._started > time_limit:
                        return False
                    while waiting and len(self._jobs) < self.jobs:
                        self._jobs.append(self.start(waiting.pop(0)))
                    for job in [job for job in self._jobs if job.process.poll() is not None]:
                        self._jobs.remove(job)
                        self._end(job, waiting)
                    if time.monotonic() - reported > STATUS_EVERY:
                        reported = time.monotonic()
                        print(self.describe_progress(waiting))
                    time.sleep(POLL)
                return True
            finally:
                self._stop_all()

    def describe_budget(self, runs: Sequence[Run]) -> str:
        """What is to be trained, and how long it takes at the rate of the runs so far."""
        left = [run for run in runs if not self.is_finished(run)]
        epochs = sum(self._count_left(run) for run in left)
        seconds = [
            collect_run(run, find_run_folder(self.folder, run)).get_seconds()
            for run in self.study.list_runs()
        ]
        known = [each for each in seconds if not math.isnan(each)]
        jobs = max(min(self.jobs, len(left)), 1)
        eta = "the time is known after the first epochs"
        if known:
            eta = f"about {format_duration(epochs * statistics.fmean(known) / jobs)}"
        arms = ", ".join(arm.name for arm in self.study.arms)
        return (
            f"{len(runs)} runs of {len(self.study.arms)} arms ({arms}), "
            f"{len(runs) - len(left)} finished; {epochs} epochs to train, "
            f"{self.machine.describe(self.jobs)}; {eta}"
        )

    def is_finished(self, run: Run) -> bool:
        """Whether a run was trained to its end."""
        return collect_run(run, find_run_folder(self.folder, run)).finished

    def start(self, run: Run) -> Job:
        """Starts a run, or resumes it where a checkpoint exists.

        Raises:
            UserError: another process trains in its folder.
        """
        folder = find_run_folder(self.folder, run)
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_locked():
            raise UserError(
                f"{folder.path}: another process is training this run; wait until it ends, or share the "
                f"runs out by --shard"
            )
        slot = min(set(range(self.jobs)) - {job.slot for job in self._jobs})
        variables = self.machine.make_environment(slot, self.jobs)
        command = TrainCommand(
            command=self.command,
            words=make_train_words(self.study, self.folder, run),
            environment={**self.environment, **variables},
            own_session=True,  # or it would get two signals, and end without a checkpoint
        )
        before = count_epochs(folder)
        return Job(run, slot, command.start(folder), before)

    def describe_progress(self, waiting: Sequence[Run]) -> str:
        """How many epochs are done and how long the rest takes, at the rate of this session."""
        running = sum(self._count_new_epochs(job) for job in self._jobs)
        left = sum(self._count_left(run) for run in [*waiting, *(job.run for job in self._jobs)])
        done = self._epochs_done + running
        elapsed = time.monotonic() - self._started
        eta = format_duration(left * elapsed / done) if done else "unknown until an epoch is done"
        return (
            f"{len(self._jobs)} running, {len(waiting)} waiting, {done} epochs in "
            f"{format_duration(elapsed)}, {left} left: ETA {eta}"
        )

    def _count_left(self, run: Run) -> int:
        done = count_epochs(find_run_folder(self.folder, run))
        return max(self.epochs[run.arm.name] - done, 0)

    def _count_new_epochs(self, job: Job) -> int:
        return max(count_epochs(find_run_folder(self.folder, job.run)) - job.epochs_before, 0)

    def _end(self, job: Job, waiting: Sequence[Run]) -> None:
        """Reports how a run ended."""
        self._epochs_done += self._count_new_epochs(job)
        result = collect_run(job.run, find_run_folder(self.folder, job.run))
        if job.process.returncode == 0 and result.finished:
            metric = find_metrics(result.rows)[0]
            value = metric.format_value(result.get_last(metric.name))
            print(f"{job.run.name}: {metric.title} {value}", end="; ")
        else:
            self.failed.append(job.run)
            log = find_log(self.folder, job.run)
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            print(f"{job.run.name}: failed (status {job.process.returncode}), see {log}")
            print("\n".join(f"    {line}" for line in lines))
        print(self.describe_progress(waiting))

    def _stop_all(self) -> None:
        """Ends the processes that are left; each writes a checkpoint first."""
        for job in self._jobs:
            job.process.terminate()
        deadline = time.monotonic() + GRACE
        for job in self._jobs:
            try:
                job.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
        self._jobs.clear()


def make_train_words(study: Study, folder: Path, run: Run) -> list[str]:
    """The arguments of the training command for a run, but for --out."""
    request = make_request(study, folder, run)
    words = ["--cfg", request.cfg]
    if request.data is not None:
        words += ["--data", request.data]
    if request.weights is not None:
        words += ["--weights", str(request.weights)]
    return [*words, *request.overrides]


def find_log(folder: Path, run: Run) -> Path:
    """The file with what the process of a run printed."""
    path = find_run_folder(folder, run).path
    return path.with_name(f"{path.name}.log")


def select_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables of an outer torchrun, each run being a job of its own."""
    foreign = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {
        name: value
        for name, value in environment.items()
        if name not in foreign and not name.startswith("TORCHELASTIC_")
    }


@contextlib.contextmanager
def terminate_by_exception() -> Iterator[None]:
    """A context in which SIGTERM raises SystemExit, so that the runs are stopped as well."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        before: Callable | int | None = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
