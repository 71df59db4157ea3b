"""A search for settings by Optuna: its samplers and pruners, its storage, and trials that resume.

The state of a search is in the storage alone, so that several machines can share it, and a killed one
resumes: a trial that nobody trains any more is taken over where its run folder ends.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from detector.config.duration import format_duration
from detector.engine import RunFolder
from detector.errors import UserError, writing
from detector.study import runner
from detector.study.search_space import Range, Value, format_words
from detector.study.study_metrics import Metric
from detector.study.trial_process import Launcher, Training, find_trial_folder

NAME = "tune"  # of the study in the storage
MOST_FAILURES = 3  # before anything has succeeded: it is not the settings of a trial
WARM_UP = 0.2  # share of the epochs before a trial may be pruned: the rate and the EMA warm up
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_search(
    url: str | None, metric: Metric, *, sampler: str, pruner: str, epochs: int, seed: int | None
) -> optuna.Study:
    """Opens the search in a storage, or creates it.

    Args:
        url: of the storage, such as sqlite:///runs/tune/tune.db; None keeps it in memory.
        metric: the objective.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.
        epochs: of a trial.
        seed: of the sampler; None differs from machine to machine, as those that share a search must.

    Raises:
        UserError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
    warm_up = math.ceil(WARM_UP * epochs)
    try:
        return optuna.create_study(
            study_name=NAME,
            storage=url,
            sampler=made(seed=seed),
            pruner={
                "median": optuna.pruners.MedianPruner(n_warmup_steps=warm_up + 1),
                "hyperband": optuna.pruners.HyperbandPruner(max(warm_up, 1), max(epochs, 1)),
                "none": optuna.pruners.NopPruner(),
            }[pruner],
            direction="minimize" if metric.lower_is_better else "maximize",
            load_if_exists=True,
        )
    except (optuna.exceptions.StorageInternalError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--storage {url}: cannot be opened: {reason}") from None
    except Exception as error:
        # SQLAlchemy's own errors, which Optuna lets through while it connects
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"--storage {url}: cannot be opened: {reason}") from None


@dataclass(slots=True)
class Running:
    """A trial that is being trained here.

    Attributes:
        trial: of the search.
        training: its process.
        slot: which of the places it occupies.
        reported: the epochs whose scores the storage has.
    """

    trial: Trial
    training: Training
    slot: int
    reported: set[int]


@dataclass(slots=True)
class Search:
    """Trains trials until there are enough.

    Attributes:
        study: in the storage.
        space: the ranges.
        metric: the objective.
        folder: of the search.
        launch: starts the training of a trial.
        jobs: trials at a time.
    """

    study: optuna.Study
    space: Sequence[Range]
    metric: Metric
    folder: Path
    launch: Launcher
    jobs: int = 1
    _running: list[Running] = field(default_factory=list)

    def enqueue(self, values: dict[str, Value]) -> None:
        """Makes values those of the first trial."""
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(values, skip_if_exists=True)

    def run(self, num_trials: int, *, time_limit: float | None = None) -> bool:
        """Trains until the search has so many trials; prints a line as each ends.

        Args:
            num_trials: of the whole search, on all machines, with those that were pruned or have failed.
            time_limit: seconds after which the trials are stopped, resumable; None: none.

        Returns:
            Whether the end was reached; False if the time was up.

        Raises:
            UserError: the first trials have all failed.
            SystemExit: stopped by a signal, after the trials have written their checkpoints.
        """
        started = time.monotonic()
        with runner.terminate_by_exception():
            try:
                while True:
                    while len(self._running) < self.jobs and self._start_next(num_trials):
                        pass
                    if not self._running:
                        return True
                    if time_limit is not None and time.monotonic() - started > time_limit:
                        return False
                    for each in list(self._running):
                        self._watch(each)
                    time.sleep(runner.POLL)
            finally:
                for each in self._running:
                    each.training.stop()
                self._running.clear()

    def count_running_elsewhere(self) -> int:
        """The number of trials that another process trains now."""
        return len(self._list_running()) - len(self._running)

    def describe_budget(self, num_trials: int) -> str:
        """What the search has and what is left."""
        trials = [t for t in self.study.get_trials(deepcopy=False) if t.state in ENDED]
        counts = {state: sum(t.state == state for t in trials) for state in ENDED}
        times = [t.duration.total_seconds() for t in trials if t.duration is not None]
        left = max(num_trials - len(trials), 0)
        eta = "the time is known after the first trials"
        if times:
            eta = f"about {format_duration(left * sum(times) / len(times) / self.jobs)}"
        return (
            f"{num_trials} trials over {', '.join(each.key for each in self.space)}: "
            f"{counts[TrialState.COMPLETE]} finished, {counts[TrialState.PRUNED]} pruned, "
            f"{counts[TrialState.FAIL]} failed; {left} to train, {self.jobs} at a time; {eta}"
        )

    def _list_running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _start_next(self, num_trials: int) -> bool:
        """Takes over a trial that nobody trains, or begins one; whether there was any to train."""
        own = {each.trial.number for each in self._running}
        for frozen in self._list_running():
            if frozen.number not in own and self._lock(frozen.number):
                print(f"trial {frozen.number}: resumed")
                # asked before, by a process that has ended
                self._start(Trial(self.study, frozen._trial_id), set(frozen.intermediate_values))
                return True
        trials = self.study.get_trials(deepcopy=False)
        if sum(trial.state != TrialState.WAITING for trial in trials) >= num_trials:
            return False
        trial = self.study.ask()
        self._lock(trial.number)
        self._start(trial, set())
        return True

    def _start(self, trial: Trial, reported: set[int]) -> None:
        words = format_words({each.key: each.draw(trial) for each in self.space})
        slot = min(set(range(self.jobs)) - {each.slot for each in self._running})
        training = self.launch(trial.number, words, slot)
        self._running.append(Running(trial, training, slot, reported))

    def _lock(self, number: int) -> bool:
        """Takes a trial for this process until it ends; False if another one has it."""
        place = RunFolder(self.folder / "locks" / f"{number}")
        with writing(place.path):
            place.path.mkdir(parents=True, exist_ok=True)
        if place.is_locked() or find_trial_folder(self.folder, number).is_locked():
            return False  # the latter if its search was killed and its training was not
        try:
            place.lock()
        except UserError:  # taken between the two
            return False
        return True

    def _watch(self, each: Running) -> None:
        """Reports new scores of a trial, prunes it, or ends it."""
        state = each.training.get_state()  # before the scores, so that the last one is among them
        scores = each.training.read_scores()
        for epoch in sorted(scores.keys() - each.reported):
            each.trial.report(scores[epoch], epoch)
            each.reported.add(epoch)
        if state == "running":
            if each.reported and each.trial.should_prune():
                each.training.stop()
                self._end(each, TrialState.PRUNED, scores)
            return
        finished = state == "finished" and bool(scores)
        self._end(each, TrialState.COMPLETE if finished else TrialState.FAIL, scores)

    def _end(self, each: Running, state: TrialState, scores: dict[int, float]) -> None:
        """Tells the storage how a trial ended, and prints it."""
        self._running.remove(each)
        value = scores[max(scores)] if scores else None
        told = value if state == TrialState.COMPLETE else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a trial without a value
            self.study.tell(each.trial, told, state=state)
        words = " ".join(format_words(each.trial.params))
        if state == TrialState.FAIL:
            lines = "".join(f"\n    {line}" for line in each.training.read_log())
            print(f"trial {each.trial.number}: failed; {words}{lines}")
            self._require_success()
            return
        shown = "none" if value is None else self.metric.format_value(value)
        after = (
            f" after epoch {max(scores, default=0)}, pruned" if state != TrialState.COMPLETE else ""
        )
        print(f"trial {each.trial.number}: {self.metric.title} {shown}{after}; {words}")

    def _require_success(self) -> None:
        ended = [t for t in self.study.get_trials(deepcopy=False) if t.state in ENDED]
        if len(ended) >= MOST_FAILURES and all(t.state == TrialState.FAIL for t in ended):
            raise UserError(
                f"the first {len(ended)} trials have all failed; see {self.folder}/trials/*.log"
            )


def list_best(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """The best finished trials with different values, best first; of equal ones the earlier."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    best: list[FrozenTrial] = []
    for trial in sorted(trials, key=lambda t: (sign * (t.value or 0.0), t.number)):
        if len(best) < count and all(trial.params != other.params for other in best):
            best.append(trial)
    return best


def list_results(
    study: optuna.Study,
) -> list[tuple[int, str, str, dict[int, float], float]]:
    """Number, state, words, scores by epoch and seconds of each trial that has begun."""
    names = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return [
        (
            trial.number,
            names.get(trial.state, "running"),
            " ".join(format_words(trial.params)),
            dict(trial.intermediate_values),
            math.nan if trial.duration is None else trial.duration.total_seconds(),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]


def find_importances(study: optuna.Study) -> dict[str, float]:
    """The share of the objective's variance that each key explains (fANOVA); {} with too few trials."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4 or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
