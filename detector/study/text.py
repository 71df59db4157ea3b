"""The answer as tables for the terminal and as Markdown."""

import math
from collections.abc import Sequence

from detector.study.answer import METRICS, Answer, Comparison, Spread
from detector.study.statistics import COVERAGE, POWER

Table = list[list[str]]  # rows of cells; the first row is the header


def make_result_table(answer: Answer) -> Table:
    """A row per arm: the layout of the Mish paper's Table 5, with the runs that it is the mean of."""
    rows = [["arm", "runs", *METRICS]]
    for arm in answer.arms:
        runs = str(arm.metrics[answer.metric].count)
        rows.append([arm.name, runs, *(format_percent(arm.metrics[m].mean) for m in METRICS)])
    return rows


def make_spread_table(answer: Answer) -> Table:
    """A row per arm: mean, loss, standard deviation and range; the layout of the paper's Table 1."""
    losses = list(dict.fromkeys(name for arm in answer.arms for name in arm.losses))
    head = [f"mean {answer.metric}", *(f"{name} loss" for name in losses)]
    rows = [["arm", *head, f"sd {answer.metric}", "min - max", "s / epoch", "peak memory"]]
    for arm in answer.arms:
        metric = arm.metrics[answer.metric]
        means = [format_number(arm.losses[n].mean if n in arm.losses else math.nan) for n in losses]
        rows.append(
            [
                arm.name,
                format_percent(metric.mean, 2),
                *means,
                format_percent(metric.sd, 2),
                f"{format_percent(metric.least)} - {format_percent(metric.greatest)}",
                format_number(arm.seconds.mean),
                format_memory(arm.peak_memory),
            ]
        )
    return rows


def make_comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """A row per comparison, in percentage points."""
    interval = f"{COVERAGE:.0%} interval"
    rows = [["difference", "pairs", "mean", interval, "bootstrap", "p", "p (Holm)", "detectable"]]
    for each in comparisons:
        rows.append(
            [
                f"{each.arm} - {each.baseline}",
                str(len(each.differences)),
                format_points(each.mean),
                format_interval((each.low, each.high)),
                format_interval(each.bootstrap),
                format_p(each.p),
                format_p(each.p_holm),
                format_points(each.detectable, sign=""),
            ]
        )
    return rows


def format_percent(value: float, digits: int = 1) -> str:
    """A number in [0, 1] in percent; the word none where it is undefined."""
    return "none" if math.isnan(value) else f"{100 * value:.{digits}f}"


def format_points(value: float, sign: str = "+") -> str:
    """A difference in percentage points."""
    # adding 0.0 makes -0.0 a 0.0, so that no difference has no sign
    return "none" if math.isnan(value) else f"{round(100 * value, 2) + 0.0:{sign}.2f}"


def format_interval(ends: tuple[float, float] | None) -> str:
    """Both ends of an interval in percentage points."""
    if ends is None or math.isnan(ends[0]):
        return "none"
    return f"{format_points(ends[0])} to {format_points(ends[1])}"


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
        f"of the EMA weights after the last epoch, in percent{missing}"
    )


def describe_method(answer: Answer) -> str:
    """How to read the table of differences."""
    count = len(answer.comparisons[answer.metric])
    holm = f" Holm's correction is for {count} comparisons." if count > 1 else ""
    pairs = "seed and fold" if answer.study.folds else "seed"
    folds = (
        " Folds share training images, which widens the interval (Nadeau and Bengio, 2003)."
        if answer.study.folds
        else ""
    )
    return (
        f"Differences of {answer.metric} in percentage points, over runs with the same {pairs}; paired t "
        f"intervals, and a bootstrap over the pairs, which is too narrow for few of them. Detectable: "
        f"the smallest true difference that these pairs would show in {POWER:.0%} of studies."
        f"{holm}{folds}"
    )


def format_text(answer: Answer) -> str:
    """For the terminal."""
    comparisons = answer.comparisons[answer.metric]
    return "\n".join(
        [
            describe_design(answer),
            "",
            align(make_result_table(answer)),
            "",
            align(make_spread_table(answer)),
            "",
            describe_method(answer),
            align(make_comparison_table(comparisons)),
            "",
            *(format_verdict(each) for each in comparisons),
        ]
    )


def format_markdown(answer: Answer, command: str) -> str:
    """A page in Markdown, with the command that made it."""
    comparisons = answer.comparisons[answer.metric]
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
            describe_method(answer),
            "",
            make_markdown_table(make_comparison_table(comparisons)),
            "",
            *(f"* {format_verdict(each)}" for each in comparisons),
            "",
        ]
    )


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
