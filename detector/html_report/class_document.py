"""The report page of a classifier, and the files beside it."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.api.class_validation import ClassEvaluation
from detector.data import UnreadableImage
from detector.errors import writing
from detector.evaluation import Accuracy, ClassAnalysis
from detector.html_report.charts import (
    MAX_CONFUSION_CLASSES,
    draw_calibration,
    draw_confusion_matrix,
    draw_epochs,
)
from detector.html_report.document import make_page, make_section
from detector.html_report.error_images import SMALL, draw_scaled, make_figure
from detector.html_report.shapes import Drawing
from detector.html_report.tables import escape, format_percent, make_confusion_table, make_table

MAX_ERRORS = 24  # shown; errors.json has all
MAX_CLASSES = 200  # rows of the table, the worst ones; classes.json has all


def write_class_report(folder: Path, evaluation: ClassEvaluation) -> Path:
    """Writes report.html, its charts and images as PNG, confusion.csv, errors.json and classes.json.

    Args:
        folder: created where it is missing.
        evaluation: of a classifier.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder or a file in it cannot be written.
    """
    path, analysis = folder / "report.html", evaluation.analysis
    charts = draw_class_charts(evaluation)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(path):
        write_class_files(folder, evaluation)
        sections = [
            f"<h1>{escape(evaluation.source)}</h1><p>{escape(evaluation.about)}.</p>",
            make_accuracy_cards(analysis),
            f'<div class="pair">{"".join(make_chart_sections(analysis, charts))}</div>',
            *make_wide_sections(folder, evaluation, charts),
        ]
        path.write_text(make_page(evaluation.source, sections), encoding="utf-8")
    for chart in charts.values():
        chart.save_png(folder)
    return path


def draw_class_charts(evaluation: ClassEvaluation) -> dict[str, Drawing]:
    """Every chart, by the name of its PNG file; no curves without a results.csv."""
    analysis = evaluation.analysis
    charts = [
        draw_calibration(analysis.bins, "predictions"),
        draw_confusion_matrix(analysis.confusion, analysis.names),
    ]
    if evaluation.history:
        charts += [
            draw_epochs(
                "accuracy", "accuracy", evaluation.history, {"top1": "top-1", "top5": "top-5"}
            ),
            draw_epochs(
                *("losses", "cross-entropy", evaluation.history),
                {"loss_cls": "training, augmented", "loss": "validation, EMA"},
            ),
        ]
    return {chart.name: chart for chart in charts}


def write_class_files(folder: Path, evaluation: ClassEvaluation) -> None:
    """Writes confusion.csv, errors.json and classes.json, which hold all rows."""
    analysis, index = evaluation.analysis, evaluation.reader.index
    names = analysis.names
    file_of = dict(zip(index.image_ids.tolist(), range(len(index)), strict=True))
    errors = [
        {
            "file": index.files[file_of[each.image_id]],
            "class": names[each.label],
            "predicted": names[each.predicted],
            "score": round(each.score, 6),
        }
        for each in analysis.errors
    ]
    (folder / "errors.json").write_text(json.dumps(errors, indent=1), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(analysis.as_json(), indent=1), encoding="utf-8")
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["true \\ predicted", *names])
        rows.writerows([n, *row] for n, row in zip(names, analysis.confusion.tolist(), strict=True))


def make_accuracy_cards(analysis: ClassAnalysis) -> str:
    """Top-1 and top-5 with their intervals, cross-entropy and calibration error."""

    def make_card(name: str, value: str, below: str = "") -> str:
        return f'<div class="card"><span>{name}</span><b>{value}</b><span>{below}</span></div>'

    def make_accuracy_card(name: str, each: Accuracy) -> str:
        between = f"{100 * each.low:.2f} to {100 * each.high:.2f}"
        return make_card(name, f"{100 * each.value:.2f}", between)

    cards = [
        make_accuracy_card("top-1", analysis.top1),
        make_accuracy_card("top-5", analysis.top5),
        make_card("cross-entropy", f"{analysis.loss:.4f}"),
        make_card("calibration error", f"{100 * analysis.calibration_error:.2f}"),
    ]
    return (
        "<p>Accuracies in percent, with 95 % intervals for other images of this kind (Wilson); they do "
        f'not cover what another seed would give.</p><div class="cards">{"".join(cards)}</div>'
    )


def make_chart_sections(analysis: ClassAnalysis, charts: dict[str, Drawing]) -> list[str]:
    """The sections that are laid out two in a row."""
    about = "Of the EMA weights on the validation images, after each epoch."
    curves = [
        make_section(title, about if name == "accuracy" else "By epoch.", charts[name].svg())
        for name, title in (("accuracy", "Accuracy by epoch"), ("losses", "Losses by epoch"))
        if name in charts
    ]
    calibration = make_section(
        "Calibration",
        "Accuracy against the mean score of the first prediction, by bins of score; on the dashed line, "
        "the score equals the probability that a prediction is right. Larger dots stand for more images. "
        f"The mean distance to the line is {100 * analysis.calibration_error:.2f} points.",
        charts["calibration"].svg(),
    )
    return [*curves, calibration, make_section("Classes", *describe_classes(analysis))]


def describe_classes(analysis: ClassAnalysis) -> tuple[str, str]:
    """What the table of the classes shows, and the table: the least found first."""
    rows = sorted(analysis.rows, key=lambda row: 2 if row.recall is None else row.recall)
    cells = [
        (row.name, row.images, format_percent(row.recall), format_percent(row.precision))
        for row in rows[:MAX_CLASSES]
    ]
    more = f" The first {MAX_CLASSES} of {len(rows)}." if len(rows) > MAX_CLASSES else ""
    table = make_table(("class", "images", "recall", "precision"), cells)
    about = f"In percent; the classes with the lowest recall first.{more} All are in classes.json."
    return about, f'<div class="tall">{table}</div>'


def make_wide_sections(
    folder: Path, evaluation: ClassEvaluation, charts: dict[str, Drawing]
) -> list[str]:
    """The sections of full width; their images are written to the folder."""
    analysis = evaluation.analysis
    few = ""
    if len(analysis.names) > MAX_CONFUSION_CLASSES:
        few = f" Only the {MAX_CONFUSION_CLASSES} classes with the most errors are shown."
    return [
        make_section(
            "Confusion matrix",
            f"Rows are ground truth, columns are predictions; confusion.csv has the numbers.{few}",
            f'<div class="beside">{charts["confusion"].svg()}'
            f"{make_confusion_table(analysis.confusion, analysis.names)}</div>",
        ),
        make_section(
            "Most confident errors",
            f"The wrong predictions of the highest scores, of {len(analysis.errors)}; some may be wrong "
            "labels. All are in errors.json.",
            draw_confident_errors(folder, evaluation),
        ),
    ]


def draw_confident_errors(folder: Path, evaluation: ClassEvaluation) -> str:
    """Draws the errors of the highest scores, and writes them as error_*.png; returns their HTML."""
    index, names = evaluation.reader.index, evaluation.analysis.names
    figures: list[str] = []
    for number, error in enumerate(evaluation.analysis.errors[:MAX_ERRORS], 1):
        at = int(np.flatnonzero(index.image_ids == error.image_id)[0])
        try:
            pixels = evaluation.reader.read(at).image
        except UnreadableImage:  # it has been removed since
            continue
        caption = (
            f"{number}. {names[error.label]}, predicted {names[error.predicted]} with score "
            f"{error.score:.3f} ({index.files[at]})"
        )
        picture = draw_scaled(pixels, [], SMALL)
        figures.append(make_figure(folder / f"error_{number:02}.png", picture, caption))
    return _join(figures)


def _join(figures: Sequence[str]) -> str:
    return f'<div class="pictures small">{"".join(figures)}</div>' if figures else "<p>None.</p>"
