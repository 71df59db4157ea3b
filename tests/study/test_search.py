"""The search with Optuna, over trainings that are formulas in this process."""

import math
import re

import pytest

from detector.engine import RunFolder
from detector.errors import UserError
from detector.study.search_page import make_search_page
from detector.study.search_report import (
    SearchReport,
    TrialResult,
    format_search_markdown,
    format_search_text,
)
from detector.study.search_space import Range
from detector.study.study_metrics import AP, CLASSIFICATION

optuna = pytest.importorskip("optuna")
from detector.study import search as search_module  # noqa: E402
from detector.study.search import Search, find_importances, list_best, list_results  # noqa: E402

SPACE = (Range("x", (), -1.0, 1.0), Range("kind", ("good", "bad")))
EPOCHS = 5


class Formula:
    """A training whose AP rises to 0.9 - (x - 0.5)^2, less where `kind` is bad; an epoch a look."""

    def __init__(self, words, *, fails=False, stays=False):
        values = dict(word.split("=") for word in words)
        self.best = 0.9 - (float(values["x"]) - 0.5) ** 2 - 0.3 * (values["kind"] == "bad")
        self.fails, self.stays, self.epochs, self.stopped = fails, stays, 0, False

    def get_state(self):
        self.epochs = min(self.epochs + 1, EPOCHS)
        if self.fails:
            return "failed"
        return "finished" if self.epochs == EPOCHS and not self.stays else "running"

    def read_scores(self):
        return {n: self.best * n / EPOCHS for n in range(1, self.epochs + 1)}

    def read_log(self):
        return ["error: it fails"]

    def stop(self):
        self.stopped = True


class Launch:
    """Starts formulas, and keeps them by number."""

    def __init__(self, **options):
        self.options, self.started, self.slots = options, {}, []

    def __call__(self, number, words, slot):
        self.started.setdefault(number, []).append(Formula(words, **self.options))
        self.slots.append(slot)
        return self.started[number][-1]


@pytest.fixture(scope="module", autouse=True)
def _no_waiting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detector.study.runner.POLL", 0.0)
        yield


def open_storage(folder, *, pruner="none", seed=0, metric=AP, in_memory=False):
    url = None if in_memory else f"sqlite:///{folder / 'tune.db'}"
    return search_module.open_search(
        url, metric, sampler="tpe", pruner=pruner, epochs=EPOCHS, seed=seed
    )


def make_search(folder, launch, **options):
    jobs = options.pop("jobs", 1)
    return Search(open_storage(folder, **options), SPACE, AP, folder, launch, jobs)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search of 24 trials, two at a time, with its launcher."""
    folder = tmp_path_factory.mktemp("search")
    launch = Launch()
    search = make_search(folder, launch, jobs=2, in_memory=True)
    search.enqueue({"x": -1.0, "kind": "bad"})
    assert search.run(24)
    return search, launch


def test_the_best_is_near_the_truth(found):
    search, launch = found
    assert len(launch.started) == 24
    assert set(launch.slots) == {0, 1}
    assert search.study.trials[0].params == {"x": -1.0, "kind": "bad"}  # what was enqueued
    best = list_best(search.study, 3)
    assert best[0].params["kind"] == "good"
    assert abs(best[0].params["x"] - 0.5) < 0.3
    assert [t.value for t in best] == sorted((t.value for t in best), reverse=True)
    assert len({tuple(t.params.items()) for t in best}) == 3


def test_importances_and_budget(found):
    search, _ = found
    shares = find_importances(search.study)
    assert set(shares) == {"x", "kind"}
    assert math.isclose(sum(shares.values()), 1)
    assert "24 finished, 0 pruned, 0 failed; 6 to train, 2 at a time" in search.describe_budget(30)


def test_the_page_and_the_tables(found):
    search, _ = found
    trials = tuple(TrialResult(*row) for row in list_results(search.study))
    pruned = TrialResult(24, "pruned", "x=0 kind=<bad>", {1: 0.1})
    report = SearchReport(
        "a.yaml: x, kind", AP, SPACE, (*trials, pruned), {"x": 0.75, "kind": 0.25}
    )
    page = make_search_page(report, "<command>")
    assert page.count("<svg") == 3  # history, importance, curves
    assert page.count("<circle") == 25
    assert page.count("<polyline") >= 25
    assert not re.search(r'(src|href)="|@import|https?://', page)
    assert "kind=&lt;bad&gt;" in page
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", page))
    text = format_search_text(report)
    assert "25 trials: 24 finished, 1 pruned, 0 failed" in text
    assert "explained by: x 75 %; kind 25 %" in text
    assert "The best trials have not been trained with fresh seeds yet" in text
    first = text.splitlines()[3].split()
    assert first[0] == str(report.list_best()[0].number)
    assert "```\nthe command\n```" in format_search_markdown(report, "the command")


def test_a_search_without_a_score_has_a_page():
    report = SearchReport("a", AP, SPACE, (TrialResult(0, "failed", "x=1", {}),), {})
    assert "<svg" not in make_search_page(report, "")
    assert report.as_json()["trials"][0]["seconds"] is None


def test_a_lower_loss_is_the_better_one(tmp_path):
    study = open_storage(tmp_path, metric=CLASSIFICATION[2], in_memory=True)
    for value in (0.5, 0.2, 0.9):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    assert [t.value for t in list_best(study, 2)] == [0.2, 0.5]


def test_unpromising_trials_are_pruned(tmp_path, capsys):
    launch = Launch()
    search = make_search(tmp_path, launch, pruner="median", in_memory=True)
    for x in (0.5, 0.4, 0.6, 0.45, 0.55):
        search.study.enqueue_trial({"x": x, "kind": "good"})
    search.study.enqueue_trial({"x": -1.0, "kind": "bad"})
    assert search.run(6)
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["COMPLETE"] * 5 + ["PRUNED"]
    (bad,) = launch.started[5]
    assert bad.stopped
    assert 1 < bad.epochs < EPOCHS  # not in the warm-up
    assert "pruned; x=-1.0 kind=bad" in capsys.readouterr().out


def test_a_stopped_search_resumes_its_trials(tmp_path, capsys):
    launch = Launch(stays=True)
    search = make_search(tmp_path, launch, jobs=2)
    assert not search.run(4, time_limit=0.2)
    assert all(each.stopped for (each,) in launch.started.values())
    before = {t.number: t.params for t in search.study.trials}
    assert set(before) == {0, 1}
    again = Launch()
    second = make_search(tmp_path, again, jobs=1)
    assert second.run(4)
    assert "trial 0: resumed" in capsys.readouterr().out
    assert set(again.started) == {0, 1, 2, 3}
    trials = second.study.trials
    assert {t.number: t.params for t in trials if t.number in before} == before
    assert all(t.state.name == "COMPLETE" for t in trials)
    assert trials[0].intermediate_values.keys() == set(range(1, EPOCHS + 1))


def test_a_trial_of_another_machine_is_left_to_it(tmp_path, monkeypatch):
    """Locks are those of processes, so that the other machine is played by a taken lock."""
    search = make_search(tmp_path, Launch())
    other = search.study.ask()
    other.suggest_float("x", -1, 1)
    free = RunFolder.is_locked
    monkeypatch.setattr(RunFolder, "is_locked", lambda self: self.path.name == "0" or free(self))
    launch = Launch()
    second = make_search(tmp_path, launch)
    assert second.run(3)
    assert set(launch.started) == {1, 2}
    assert second.count_running_elsewhere() == 1


def test_failures(tmp_path, capsys):
    search = make_search(tmp_path, Launch(fails=True), in_memory=True)
    with pytest.raises(UserError, match="the first 3 trials have all failed"):
        search.run(10)
    assert "    error: it fails" in capsys.readouterr().out
    assert [trial.state.name for trial in search.study.trials] == ["FAIL"] * 3


def test_a_storage_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        search_module.open_search(
            f"sqlite:///{tmp_path}/missing/tune.db",
            AP,
            sampler="tpe",
            pruner="none",
            epochs=1,
            seed=0,
        )
