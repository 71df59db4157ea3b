"""The page of a search: one self-contained HTML file."""

from pathlib import Path

from detector.errors import replace_text
from detector.html_report.shapes import Drawing
from detector.html_report.tables import escape
from detector.study.page import make_document, make_section, render
from detector.study.search_charts import draw_history, draw_importances, draw_trial_curves
from detector.study.search_report import (
    SearchReport,
    describe_confirmation,
    describe_trials,
    make_trial_table,
)
from detector.study.study_charts import draw_differences, draw_scores
from detector.study.text import describe_method, make_comparison_table, make_result_table


def write_search_page(path: Path, report: SearchReport, command: str) -> None:
    """Writes the page.

    Args:
        path: of the file.
        report: what it shows.
        command: that made the search.

    Raises:
        UserError: it cannot be written.
    """
    replace_text(path, make_search_page(report, command))


def make_search_page(report: SearchReport, command: str) -> str:
    """The HTML document."""
    title = f"Search: {', '.join(each.key for each in report.space)}"
    items = "".join(f"<li>{escape(line)}</li>" for line in describe_confirmation(report))
    charts = [
        make_chart(
            "History",
            "Dots are trials, grey if they were pruned or have failed; the line is the best so far.",
            draw_history(report),
        ),
        make_chart(
            "Importance",
            "The share of the objective's variance that each key explains, by fANOVA.",
            draw_importances(report),
        ),
        make_chart("Trials by epoch", "Grey ones were pruned.", draw_trial_curves(report)),
    ]
    trials = [*report.list_best(), *(t for t in report.trials if t.state != "finished")]
    sections = [
        f"<h1>{escape(title)}</h1><p>{escape(report.about)}.</p>"
        f"<p><code>{escape(command)}</code></p>",
        f"<section><h2>Verdict of fresh runs</h2><ul>{items}</ul></section>",
        *make_answer_sections(report),
        f'<div class="pair">{"".join(charts)}</div>',
        make_section(
            "Trials", escape(describe_trials(report)), render(make_trial_table(report, trials))
        ),
    ]
    return make_document(title, sections)


def make_answer_sections(report: SearchReport) -> list[str]:
    """The fresh runs of the best trials against the default."""
    answer = report.answer
    if answer is None:
        return []
    charts = [
        make_chart("Differences of fresh runs", "As in a study.", draw_differences(answer)),
        make_chart("Fresh runs", "Thin lines join the runs of a seed.", draw_scores(answer)),
    ]
    about = escape(describe_method(answer))
    table = make_comparison_table(answer.comparisons[answer.metric.name])
    return [
        f'<div class="pair">{"".join(charts)}</div>',
        make_section("Results of fresh runs", "Means.", render(make_result_table(answer))),
        make_section("Comparisons of fresh runs", about, render(table)),
    ]


def make_chart(title: str, about: str, drawing: Drawing | None) -> str:
    """A section with a chart; nothing without one."""
    return "" if drawing is None else make_section(title, about, drawing.svg())
