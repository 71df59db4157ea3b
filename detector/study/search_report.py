"""What a search found: its trials, and the fresh runs that say what the best of them are worth."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detector.study.answer import Answer
from detector.study.search_space import Range
from detector.study.study_metrics import Metric
from detector.study.text import Table, align, format_verdict, make_markdown_table

SHOWN = 10  # trials in the tables of terminal and Markdown


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial of a search.

    Attributes:
        number: counted from 0.
        state: "finished", "pruned", "failed" or "running".
        words: `key=value` that were drawn.
        scores: the objective by epoch.
        seconds: from its start to its end; NaN while it runs.
    """

    number: int
    state: str
    words: str
    scores: dict[int, float]
    seconds: float = math.nan

    @property
    def score(self) -> float:
        """The objective after its last epoch; NaN without one."""
        return self.scores[max(self.scores)] if self.scores else math.nan


@dataclass(frozen=True, slots=True)
class SearchReport:
    """All that a report of a search shows.

    Attributes:
        about: what was searched, in a sentence.
        metric: the objective.
        space: the ranges.
        trials: by number.
        importances: share of the objective's variance by key, the largest first.
        answer: of the fresh runs of the best trials against the default; None before they are done.
    """

    about: str
    metric: Metric
    space: tuple[Range, ...]
    trials: tuple[TrialResult, ...]
    importances: dict[str, float]
    answer: Answer | None = None

    def list_best(self) -> list[TrialResult]:
        """The finished trials, best first."""
        done = [t for t in self.trials if t.state == "finished" and not math.isnan(t.score)]
        sign = 1 if self.metric.lower_is_better else -1
        return sorted(done, key=lambda t: (sign * t.score, t.number))

    def count(self, state: str) -> int:
        """The number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "about": self.about,
            "metric": self.metric.name,
            "space": [asdict(each) for each in self.space],
            "trials": [
                {**asdict(t), "seconds": None if math.isnan(t.seconds) else t.seconds}
                for t in self.trials
            ],
            "importances": self.importances,
            "confirmed": None if self.answer is None else self.answer.as_json(),
        }


def make_trial_table(report: SearchReport, trials: Sequence[TrialResult]) -> Table:
    """A row per trial."""
    rows = [["trial", "state", report.metric.title, "epochs", "minutes", "values"]]
    for each in trials:
        minutes = "" if math.isnan(each.seconds) else f"{each.seconds / 60:.1f}"
        score = report.metric.format_value(each.score)
        epochs = str(max(each.scores, default=0))
        rows.append([str(each.number), each.state, score, epochs, minutes, each.words])
    return rows


def describe_trials(report: SearchReport) -> str:
    """What the scores of the trials are, and are not."""
    return (
        f"{len(report.trials)} trials: {report.count('finished')} finished, {report.count('pruned')} "
        f"pruned, {report.count('failed')} failed. {report.metric.title} of a trial is of training "
        f"images that were held out, with one seed. The best of many is partly luck: what it is worth is "
        f"said by the fresh runs."
    )


def describe_confirmation(report: SearchReport) -> list[str]:
    """The verdicts of the fresh runs, or why there are none."""
    if report.answer is None:
        return ["The best trials have not been trained with fresh seeds yet."]
    comparisons = report.answer.comparisons[report.answer.metric.name]
    return [format_verdict(each) for each in comparisons]


def format_search_text(report: SearchReport) -> str:
    """For the terminal."""
    best = report.list_best()[:SHOWN]
    shares = "; ".join(f"{key} {100 * share:.0f} %" for key, share in report.importances.items())
    lines = [report.about, "", align(make_trial_table(report, best)), "", describe_trials(report)]
    lines += [f"explained by: {shares}"] if shares else []
    return "\n".join([*lines, "", *describe_confirmation(report)])


def format_search_markdown(report: SearchReport, command: str) -> str:
    """A page in Markdown, with the command that made it."""
    best = report.list_best()[:SHOWN]
    return "\n".join(
        [
            f"{report.about}.",
            "",
            f"```\n{command}\n```",
            "",
            *(f"* {line}" for line in describe_confirmation(report)),
            "",
            describe_trials(report),
            "",
            make_markdown_table(make_trial_table(report, best)),
            "",
        ]
    )
