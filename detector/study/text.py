"""The answer as tables for the terminal and as Markdown."""

import math
from collections.abc import Callable, Sequence

from detector.study.answer import Answer, Comparison, Spread
from detector.study.plan import Study
from detector.study.statistics import COVERAGE, POWER
from detector.study.study_metrics import CLASSIFICATION

Table = list[list[str]]  # rows of cells; the first row is the header


def make_result_table(answer: Answer) -> Table:
    """A row per arm, with the number of runs that it is the mean of.

    In the layout of the Mish paper (Misra, 2020): of Table 5 for detectors, of Table 1 for classifiers.
    """
    if answer.metrics == CLASSIFICATION:
        return make_accuracy_table(answer)
    metrics = [metric for metric in answer.metrics if not metric.is_training_loss]
    rows = [["arm", "runs", *(metric.title for metric in metrics)]]
    for arm in answer.arms:
        means = [metric.format_value(arm.metrics[metric.name].mean) for metric in metrics]
        rows.append([arm.name, str(arm.metrics[metrics[0].name].count), *means])
    return rows


def make_accuracy_table(answer: Answer) -> Table:
    """A row per arm: mean accuracy, mean loss, standard deviation of the accuracy; and top-5."""
    top1, top5, loss = answer.metrics[:3]
    rows = [["arm", "runs", "mean accuracy", "mean loss", "sd of accuracy", "mean top-5"]]
    for arm in answer.arms:
        spread = arm.metrics[top1.name]
        rows.append(
            [
                arm.name,
                str(spread.count),
                top1.format_value(spread.mean, 2),
                loss.format_value(arm.metrics[loss.name].mean),
                top1.format_value(spread.sd, 2),
                top5.format_value(arm.metrics[top5.name].mean, 2),
            ]
        )
    return rows


def make_published_table(answer: Answer) -> Table:
    """A row per published number: ours and the published, each with its deviation over the runs."""
    metrics = {metric.name: metric for metric in answer.metrics}
    rows = [["arm", "metric", "ours", "sd", "published", "sd"]]
    for value in answer.study.published:
        metric = metrics.get(value.metric)
        if metric is None:  # no run has finished, or of the other kind of network
            continue
        arm = next(each for each in answer.arms if each.name == value.arm)
        spread = arm.metrics[value.metric]
        sd = math.nan if value.sd is None else value.sd
        shown = [metric.format_value(x, 2) for x in (spread.mean, spread.sd, value.mean, sd)]
        rows.append([value.arm, metric.title, *shown])
    return rows


def describe_published(study: Study) -> str:
    """The source of the published values; that they are left out; or nothing."""
    if study.published or not study.source:
        return study.source
    return f"{study.source} (not shown: of other data, another config or other arms)"


def make_spread_table(answer: Answer) -> Table:
    """A row per arm: the verdict's metric with its spread, training losses, and what a run costs."""
    metric = answer.metric
    losses = [each for each in answer.metrics if each.is_training_loss and each != metric]
    losses = [m for m in losses if any(arm.metrics[m.name].count for arm in answer.arms)]
    head = [f"mean {metric.title}", f"sd {metric.title}", "min - max"]
    rows = [["arm", *head, *(m.title for m in losses), "s / epoch", "peak memory"]]
    for arm in answer.arms:
        spread = arm.metrics[metric.name]
        rows.append(
            [
                arm.name,
                metric.format_value(spread.mean, 2),
                metric.format_value(spread.sd, 2),
                f"{metric.format_value(spread.least)} - {metric.format_value(spread.greatest)}",
                *(m.format_value(arm.metrics[m.name].mean) for m in losses),
                format_number(arm.seconds.mean),
                format_memory(arm.peak_memory),
            ]
        )
    return rows


def make_comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """A row per comparison; differences of shares are in percentage points."""
    interval = f"{COVERAGE:.0%} interval"
    intervals = [interval, "bootstrap of pairs", "of images"]
    rows = [["difference", "pairs", "mean", *intervals, "p", "p (Holm)", "detectable"]]
    for each in comparisons:
        rows.append(
            [
                f"{each.arm} - {each.baseline}",
                str(len(each.differences)),
                each.metric.format_difference(each.mean),
                each.metric.format_interval((each.low, each.high)),
                each.metric.format_interval(each.bootstrap),
                each.metric.format_interval(each.images),
                format_p(each.p),
                format_p(each.p_holm),
                each.metric.format_difference(each.detectable, sign=""),
            ]
        )
    return rows


def format_p(value: float) -> str:
    """A p value; no digits that mean nothing."""
    if math.isnan(value):
        return "none"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_number(value: float) -> str:
    """Three digits."""
    return "none" if math.isnan(value) else f"{value:.3g}"


def format_memory(spread: Spread) -> str:
    """The greatest of several peaks."""
    return "unknown" if math.isnan(spread.greatest) else f"{spread.greatest / 2**30:.2f} GiB"


def format_verdict(comparison: Comparison) -> str:
    """One line: which arm, and what was shown."""
    return f"{comparison.arm} against {comparison.baseline}: {comparison.verdict}"


def describe_design(answer: Answer) -> str:
    """What was trained, in a sentence."""
    study = answer.study
    folds = f" x {study.folds} folds" if study.folds else ""
    seeds = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
    unfinished = len(answer.results) - answer.num_finished
    missing = f"; {unfinished} of {len(answer.results)} runs are not finished" if unfinished else ""
    where = f" on {study.data}" if study.data else ""
    return (
        f"{study.cfg}{where}: {len(study.arms)} arms x {seeds}{folds}, paired; metrics "
        f"of the EMA weights after the last epoch{missing}"
    )


def describe_method(answer: Answer) -> str:
    """How to read the table of differences: what each interval covers."""
    study, metric = answer.study, answer.metric
    pairs = "seed and fold" if study.folds else "seed"
    sentences = [
        f"Differences of {metric.title}{metric.unit}, over runs with the same {pairs}.",
        f"The {COVERAGE:.0%} interval is a paired t interval: it covers what other "
        f"{'seeds and folds' if study.folds else 'seeds'} would show on these validation images, and "
        f"the verdict is by it.",
        "The bootstrap of pairs is for the same, and too narrow for few of them.",
    ]
    if answer.num_images:
        sentences.append(
            f"The bootstrap of images resamples the {answer.num_images} validation images: it covers "
            f"what other images would show of these very networks, not of other seeds."
        )
    sentences.append(
        f"Detectable: the smallest true difference that these pairs would show in {POWER:.0%} of studies."
    )
    count = len(answer.comparisons[metric.name])
    if count > 1:
        sentences.append(f"Holm's correction is for {count} comparisons.")
    if study.folds:
        sentences.append(
            "Folds share training images, which widens the interval (Nadeau and Bengio, 2003)."
        )
    return " ".join([*sentences, *(f"{note}." for note in answer.notes)])


def format_text(answer: Answer) -> str:
    """For the terminal."""
    comparisons = answer.comparisons[answer.metric.name]
    return "\n".join(
        [
            describe_design(answer),
            "",
            align(make_result_table(answer)),
            "",
            align(make_spread_table(answer)),
            "",
            *_format_published(answer, align),
            describe_method(answer),
            align(make_comparison_table(comparisons)),
            "",
            *(format_verdict(each) for each in comparisons),
        ]
    )


def format_markdown(answer: Answer, command: str) -> str:
    """A page in Markdown, with the command that made it."""
    comparisons = answer.comparisons[answer.metric.name]
    return "\n".join(
        [
            f"{describe_design(answer)}.",
            "",
            f"```\n{command}\n```",
            "",
            make_markdown_table(make_result_table(answer)),
            "",
            make_markdown_table(make_spread_table(answer)),
            "",
            *_format_published(answer, make_markdown_table),
            describe_method(answer),
            "",
            make_markdown_table(make_comparison_table(comparisons)),
            "",
            *(f"* {format_verdict(each)}" for each in comparisons),
            "",
        ]
    )


def _format_published(answer: Answer, make_text: Callable[[Table], str]) -> list[str]:
    about = describe_published(answer.study)
    if not answer.study.published:
        return [f"Published: {about}.", ""] if about else []
    return [f"Published ({about}), beside ours:", "", make_text(make_published_table(answer)), ""]


def align(table: Table) -> str:
    """Columns of equal width, all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def make_markdown_table(table: Table) -> str:
    """A table of Markdown, all but the first column to the right."""
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    rows = [table[0], rule, *table[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
