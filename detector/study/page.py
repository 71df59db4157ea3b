"""The page of a study: one self-contained HTML file."""

from collections.abc import Sequence
from pathlib import Path

from detector.errors import replace_text
from detector.html_report.style import SORT, STYLE
from detector.html_report.tables import escape, make_table
from detector.study.answer import Answer
from detector.study.series_chart import draw_series
from detector.study.study_charts import draw_curves, draw_differences, draw_scores
from detector.study.text import (
    Table,
    describe_design,
    describe_method,
    describe_published,
    format_verdict,
    make_comparison_table,
    make_published_table,
    make_result_table,
    make_spread_table,
)

MOST_NAMES = 4  # of arms in the title


def write_page(path: Path, answer: Answer, command: str) -> None:
    """Writes the page.

    Args:
        path: of the file.
        answer: what it shows.
        command: that made the study.

    Raises:
        UserError: it cannot be written.
    """
    replace_text(path, make_page(answer, command))


def make_page(answer: Answer, command: str) -> str:
    """The HTML document."""
    names = [arm.name for arm in answer.arms]
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    title = f"{' / '.join(names)}: {answer.metric.title}"
    sections = [
        f"<h1>{escape(title)}</h1><p>{escape(describe_design(answer))}.</p>"
        f"<p><code>{escape(command)}</code></p>",
        make_verdicts(answer),
        f'<div class="pair">{"".join(make_chart_sections(answer))}</div>',
        *make_table_sections(answer),
    ]
    return make_document(title, sections)


def make_document(title: str, sections: Sequence[str]) -> str:
    """The HTML document of these sections, which are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(sections)}<script>{SORT}</script></body></html>"
    )


def make_verdicts(answer: Answer) -> str:
    """A sentence for each comparison."""
    lines = [
        f"<li>{escape(format_verdict(each))}</li>"
        for each in answer.comparisons[answer.metric.name]
    ]
    return f"<section><h2>Verdict</h2><ul>{''.join(lines)}</ul></section>"


def make_chart_sections(answer: Answer) -> list[str]:
    """The charts, two in a row where there is room."""
    metric = answer.metric
    made = [
        make_section(
            "Differences",
            "Dot: mean of the pairs. Line: 95 % interval; where it crosses the dashed line, no "
            "difference is shown. Grey: differences too small for this number of pairs.",
            draw_differences(answer).svg(),
        ),
        make_section(
            f"{metric.title} of each run",
            "Dots are runs, bars their means; thin lines join the runs of a pair.",
            draw_scores(answer).svg(),
        ),
    ]
    others = [m for m in answer.metrics if m.lower_is_better and m != metric]
    for each in (metric, *(m for m in others if not m.is_training_loss)):
        drawing = draw_series(answer, each)
        if drawing is not None:
            about = "Line: mean of the runs. Band: from the least to the greatest."
            made.append(
                make_section(f"{each.title} by {answer.study.within}", about, drawing.svg())
            )
    for each in (metric, *others):
        drawing = draw_curves(answer, each)
        if drawing is not None:
            about = "Line: mean of the runs. Band: from the least to the greatest."
            made.append(make_section(f"{each.title} by epoch", about, drawing.svg()))
    return made


def make_table_sections(answer: Answer) -> list[str]:
    """The tables, of full width."""
    more = [["metric", *make_comparison_table([])[0]]]
    for each in answer.metrics:
        if each != answer.metric:
            rows = make_comparison_table(answer.comparisons[each.name])[1:]
            more += [[each.title, *row] for row in rows]
    changes = [["arm", "changes"], *([arm.name, " ".join(arm.words)] for arm in answer.arms)]
    study = answer.study
    table = render(make_published_table(answer)) if study.published else ""
    about = escape(describe_published(study))
    published = [make_section("Published", about, table)] if about else []
    return [
        make_section("Results", "Means; shares in percent.", render(make_result_table(answer))),
        *published,
        make_section(
            "Spread and cost",
            "Losses as they enter the total; the time of an epoch includes its evaluation.",
            render(make_spread_table(answer)),
        ),
        make_section(
            "Comparisons",
            escape(describe_method(answer)),
            render(make_comparison_table(answer.comparisons[answer.metric.name])),
        ),
        make_section(
            "Other metrics",
            f"For orientation: the verdict is about {answer.metric.title} alone, and Holm's correction "
            "is for the comparisons of one metric.",
            render(more),
        ),
        make_section("Arms", "", render(changes, kind="narrow")),
    ]


def render(table: Table, *, kind: str = "") -> str:
    """A table whose first row is its header."""
    rows: Sequence[Sequence[str]] = table[1:]
    return make_table(table[0], rows, kind=kind)


def make_section(title: str, about: str, content: str) -> str:
    """A section of the page; `about` and `content` are HTML."""
    return f"<section><h2>{escape(title)}</h2><p>{about}</p>{content}</section>"
