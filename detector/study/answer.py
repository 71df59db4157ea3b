"""The answer of a study: what each arm reached, and each difference with its interval and a verdict."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.study.collect import RunResult, make_score_table
from detector.study.image_bootstrap import ImageSamples
from detector.study.plan import Study
from detector.study.statistics import (
    COVERAGE,
    POWER,
    adjust_holm,
    bootstrap_pairs,
    compare_pairs,
    find_detectable_difference,
)
from detector.study.study_metrics import Metric, choose_metric, find_metrics

LEVEL = 1 - COVERAGE


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, sample standard deviation, least and greatest of the finished runs; NaN without them."""

    mean: float
    sd: float
    least: float
    greatest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Spread":
        """Of the values that are not NaN."""
        known = np.asarray(values, np.float64)
        known = known[~np.isnan(known)]
        if not len(known):
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        sd = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        return cls(float(known.mean()), sd, float(known.min()), float(known.max()), len(known))


@dataclass(frozen=True, slots=True, eq=False)
class ArmSummary:
    """What an arm reached in the last epoch of its finished runs.

    Attributes:
        name, words: of the arm.
        metrics: by name; training losses are weighted as in the total.
        seconds: of an epoch.
        peak_memory: bytes.
    """

    name: str
    words: tuple[str, ...]
    metrics: dict[str, Spread]
    seconds: Spread
    peak_memory: Spread


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """An arm less the arm that it is compared with, over the pairs that both have finished.

    Attributes:
        arm, baseline: their names.
        metric: which is compared.
        differences: of each pair.
        mean, sd: of the differences.
        low, high: the 95 % t interval of the mean; NaN with fewer than two pairs.
        p, p_holm: two-sided, alone and adjusted for all comparisons of the metric.
        detectable: the smallest true difference that would have been shown with probability `POWER`.
        bootstrap: interval of the mean over the pairs; None with too few.
        images: interval of the mean over the images of the evaluation; None if unknown.
    """

    arm: str
    baseline: str
    metric: Metric
    differences: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    p: float
    p_holm: float
    detectable: float
    bootstrap: tuple[float, float] | None
    images: tuple[float, float] | None = None

    @property
    def outcome(self) -> str:
        """One of "better", "worse", "no difference shown", "not enough pairs"."""
        if math.isnan(self.low):
            return "not enough pairs"
        if self.low <= 0 <= self.high or self.p_holm > LEVEL:
            return "no difference shown"
        return "better" if (self.mean > 0) != self.metric.lower_is_better else "worse"

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        outcome = self.outcome
        if outcome == "not enough pairs":
            return (
                f"no verdict: {len(self.differences)} finished pair(s), an interval needs 2 or more"
            )
        if outcome != "no difference shown":
            size = self.metric.format_difference(abs(self.mean), sign="")
            return f"{outcome} by {size} {self.metric.title}"
        if self.sd == 0 and self.mean == 0:
            return "no difference shown: the pairs are equal"
        why = "" if self.low <= 0 <= self.high else ", after Holm's correction"
        return f"{outcome}{why}; these {len(self.differences)} pairs can show {self.format_detectable()}"

    def format_detectable(self) -> str:
        """The smallest detectable difference."""
        return f"{self.metric.format_difference(self.detectable, sign='')} or more"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """All that a report shows.

    Attributes:
        study: whose answer it is.
        results: of every run, finished or not.
        arms: in the study's order.
        comparisons: by the metric's name, each arm with the baseline (or each pair of arms).
        metrics: of the networks.
        metric: the one that the verdict is about.
        num_images: that the intervals over images are of; 0 without such intervals.
        notes: lines for the user.
    """

    study: Study
    results: tuple[RunResult, ...]
    arms: tuple[ArmSummary, ...]
    comparisons: dict[str, tuple[Comparison, ...]]
    metrics: tuple[Metric, ...]
    metric: Metric
    num_images: int = 0
    notes: Sequence[str] = ()

    @property
    def num_finished(self) -> int:
        """The number of finished runs."""
        return sum(result.finished for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes null."""
        return _plain(
            {
                "study": {
                    "cfg": self.study.cfg,
                    "data": self.study.data,
                    "words": self.study.words,
                    "seeds": self.study.seeds,
                    "folds": self.study.folds,
                    "group": self.study.group,
                    "pool": self.study.pool,
                    "baseline": self.study.baseline,
                },
                "metric": self.metric.name,
                "coverage": COVERAGE,
                "power": POWER,
                "arms": [_describe(arm) for arm in self.arms],
                "comparisons": [
                    {
                        **_describe(each),
                        "metric": each.metric.name,
                        "outcome": each.outcome,
                        "verdict": each.verdict,
                    }
                    for metric in self.comparisons
                    for each in self.comparisons[metric]
                ],
                "runs": [
                    {
                        "name": result.run.name,
                        "arm": result.run.arm.name,
                        "seed": result.run.seed,
                        "fold": result.run.fold,
                        "finished": result.finished,
                        "epochs": len(result.rows),
                        **{each.name: result.get_last(each.name) for each in self.metrics},
                        "seconds": result.get_seconds(),
                        "peak_memory": result.peak_memory,
                    }
                    for result in self.results
                ],
            }
        )


def find_answer(
    study: Study,
    results: Sequence[RunResult],
    *,
    metric: str | None = None,
    all_pairs: bool = False,
    images: ImageSamples | None = None,
) -> Answer:
    """Summarises the arms and compares them.

    Args:
        study: what was compared.
        results: of `collect_results`.
        metric: the one that the verdict is about; by default AP, or top-1 of classifiers.
        all_pairs: compare each arm with each other one, not only with the baseline.
        images: of `resample_images`.

    Raises:
        UserError: the runs have no such metric.
    """
    metrics = find_metrics(row for each in results for row in each.rows)
    chosen = choose_metric(metrics, metric)
    images = images or ImageSamples()
    found = {names: images.find_intervals(*names) for names in list_comparisons(study, all_pairs)}
    comparisons = {
        metric.name: tuple(
            replace(each, images=found[each.arm, each.baseline].get(metric.name))
            for each in compare_arms(study, list(results), metric, all_pairs)
        )
        for metric in metrics
    }
    arms = tuple(summarise_arm(study, results, arm.name, metrics) for arm in study.arms)
    return Answer(
        study, tuple(results), arms, comparisons, metrics, chosen, images.num_images, images.notes
    )


def summarise_arm(
    study: Study, results: Sequence[RunResult], name: str, metrics: Sequence[Metric]
) -> ArmSummary:
    """What the finished runs of an arm reached."""
    own = [result for result in results if result.run.arm.name == name and result.finished]
    return ArmSummary(
        name=name,
        words=study.find_arm(name).words,
        metrics={m.name: Spread.of([each.get_last(m.name) for each in own]) for m in metrics},
        seconds=Spread.of([each.get_seconds() for each in own]),
        peak_memory=Spread.of([each.peak_memory for each in own]),
    )


def compare_arms(
    study: Study, results: list[RunResult], metric: Metric, all_pairs: bool
) -> tuple[Comparison, ...]:
    """The comparisons of one metric, which Holm's correction takes together."""
    scores = dict(
        zip(
            (arm.name for arm in study.arms),
            make_score_table(study, results, metric.name),
            strict=True,
        )
    )
    names = list(list_comparisons(study, all_pairs))
    made = [
        compare(metric, arm, baseline, scores[arm] - scores[baseline], study.overlap, len(names))
        for arm, baseline in names
    ]
    adjusted = adjust_holm(np.array([each.p for each in made])).tolist()
    return tuple(replace(each, p_holm=p) for each, p in zip(made, adjusted, strict=True))


def list_comparisons(study: Study, all_pairs: bool) -> Iterator[tuple[str, str]]:
    """The names of an arm and of the one that it is compared with."""
    if study.within is not None:
        for arm in study.arms:
            baseline = study.find_baseline(arm)
            if baseline is not None:
                yield arm.name, baseline.name
        return
    names = [study.baseline, *(a.name for a in study.arms if a.name != study.baseline)]
    for number, first in enumerate(names if all_pairs else names[:1]):
        for second in names[number + 1 :]:
            yield second, first


def compare(
    metric: Metric,
    arm: str,
    baseline: str,
    differences: np.ndarray,
    overlap: float,
    comparisons: int,
) -> Comparison:
    """Compares two arms; differences float64 [pairs], NaN where either is missing."""
    known = differences[~np.isnan(differences)]
    if len(known):
        found = compare_pairs(known, overlap=overlap)
        values = [float(each) for each in (found.mean, found.sd, found.low, found.high, found.p)]
    else:
        values = [math.nan] * 5
    mean, sd, low, high, p = values
    return Comparison(
        arm=arm,
        baseline=baseline,
        metric=metric,
        differences=tuple(known.tolist()),
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        detectable=find_detectable_difference(
            sd, len(known), overlap=overlap, level=LEVEL / comparisons
        ),
        bootstrap=bootstrap_pairs(known),
    )


def _describe(each: Any) -> dict[str, Any]:
    """The attributes of a dataclass, as they are."""
    return {name: getattr(each, name) for name in each.__dataclass_fields__}


def _plain(value: Any) -> Any:
    """A tree of values that JSON has: no NaN, no dataclasses, no tuples."""
    if isinstance(value, Spread):
        return _plain(_describe(value))
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
