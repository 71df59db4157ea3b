"""The page, part by part, and the files beside it."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

from detector.api.validation import Evaluation
from detector.errors import writing
from detector.evaluation import Analysis, ThresholdGoal
from detector.html_report.charts import CONFUSED, all_charts
from detector.html_report.error_images import file_of, suspect_pictures, worst_pictures
from detector.html_report.shapes import Drawing
from detector.html_report.style import SORT, STYLE
from detector.html_report.tables import (
    cards,
    class_table,
    confusions,
    operating_points,
    speed,
    text,
)


def write_report(folder: Path, outcome: Evaluation, analysis: Analysis) -> tuple[Path, list[str]]:
    """Writes report.html, its charts and pictures as PNG, and three files for programs.

    Args:
        folder: made where it is missing.
        outcome: of one evaluation; without images (a results file) there are no pictures.
        analysis: of the same.

    Returns:
        The path of report.html; lines on what could not be written.

    Raises:
        UserError: the folder or a file in it cannot be written.
    """
    path = folder / "report.html"
    charts = all_charts(analysis, outcome.truth.names)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(path):
        write_lists(folder, outcome, analysis)
        page = whole_page(outcome.row.source, sections(folder, outcome, analysis, charts))
        path.write_text(page, encoding="utf-8")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        missing = (
            'the charts are in report.html only; PNGs need matplotlib: pip install -e ".[plots]"'
        )
        return path, [missing]
    for chart in charts.values():
        chart.save_png(folder)
    return path, []


def write_lists(folder: Path, outcome: Evaluation, analysis: Analysis) -> None:
    """What programs read: doubtful labels, thresholds, the whole confusion matrix."""
    ids, names = outcome.truth.image_ids, outcome.truth.names
    doubtful = [
        {**asdict(one), "image_id": int(ids[one.image]), "file": file_of(outcome, one.image)}
        for one in analysis.suspects
    ]
    (folder / "label_errors.json").write_text(json.dumps(doubtful, indent=1))
    (folder / "thresholds.json").write_text(json.dumps(analysis.thresholds(), indent=1))
    with (folder / "confusion.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        titles = [*names, "background"]
        rows.writerow(["true \\ found", *titles])
        rows.writerows([name, *row] for name, row in zip(titles, analysis.confusion, strict=True))


def whole_page(title: str, parts: list[str]) -> str:
    """A document that needs nothing from outside."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}<script>{SORT}</script></body></html>"
    )


def sections(
    folder: Path, outcome: Evaluation, analysis: Analysis, charts: dict[str, Drawing]
) -> list[str]:
    """The page from top to bottom; its pictures are written to the folder."""
    return [
        heading(outcome),
        cards(outcome),
        '<div class="pair">',
        _part(
            "Where AP50 is lost",
            "How much COCO's AP50 rises, in points, where all errors of a kind are mended; kinds "
            "overlap, so they do not add up. The kinds are those of TIDE (Bolya et al., 2020), whose "
            "figures differ where a mended box meets an object that another box has found.",
            charts["errors"].svg(),
        ),
        _part(
            "AP by size of the object",
            "Side of a square of the same area, in pixels of the original images; in brackets how many.",
            charts["sizes"].svg(),
        ),
        _part(
            "Precision and recall",
            "At IoU 0.5: every class thin, their mean thick.",
            charts["precision_recall"].svg(),
        ),
        _part(
            "Can the scores be believed?",
            "Share of boxes that are right against their score; on the line, a score is a probability. "
            "Larger dots are more boxes.",
            charts["calibration"].svg(),
        ),
        _part("Choosing a score", about_threshold(analysis), charts["scores"].svg()),
        _part(
            "F1 of each class",
            "Every class thin, all together thick: where the tops of the classes lie apart, a threshold "
            "for each of them pays. The table of classes and thresholds.json have them.",
            charts["f1"].svg(),
        ),
        _part(
            "Operating points",
            "All classes together, at IoU 0.5: the score to ask for, and what it brings.",
            operating_points(analysis.curve),
        ),
        _part("Speed", "Milliseconds an image, over batches.", speed(outcome)),
        "</div>",
        _part(
            "Classes",
            f"COCO's AP, in percent, and each class's own score for the goal: {analysis.goal}, at IoU "
            "0.5. Click a column to sort by it.",
            class_table(outcome, analysis),
        ),
        _part(
            "What is taken for what",
            about_confusion(analysis),
            f'<div class="beside">{charts["confusion"].svg()}'
            f"{confusions(analysis.confusion, outcome.truth.names)}</div>",
        ),
        _part(
            "The worst images",
            'Missed truths in <b class="true">green</b>, false boxes of score '
            f'{analysis.threshold:.3f} or more in <b class="found">orange</b>; truths that were found '
            "are thin and grey.",
            worst_pictures(folder, outcome, analysis),
        ),
        _part(
            "Labels to look at",
            "Where the label rather than the model may be wrong, the most probable first: labels in <b "
            'class="true">green</b>, finds in <b class="found">orange</b>. All '
            f"{len(analysis.suspects)} are in label_errors.json.",
            suspect_pictures(folder, outcome, analysis.suspects),
        ),
    ]


def heading(outcome: Evaluation) -> str:
    """What was evaluated, on what, by whom."""
    row = outcome.row
    about = ", ".join(
        f"{name.replace('_', ' ')} {row.about[name]}"
        for name in ("images", "size", "protocol", "precision", "evaluator")
        if name in row.about
    )
    if row.about.get("flip") or row.about.get("scales", [1]) != [1]:
        about += f", test-time augmentation: scales {row.about['scales']}, flip {row.about['flip']}"
    known = [word for word in (row.detector, row.activation) if word != "-"]
    return f"<h1>{text(row.source)}</h1><p>{text(', '.join(known))}; {text(about)}</p>"


def about_threshold(analysis: Analysis) -> str:
    """Which score was chosen and why."""
    goal, point, curve = analysis.goal, analysis.point, analysis.curve
    best = curve.point(ThresholdGoal())
    if best is None:
        return "Nothing was found."
    said = f"All classes together, at IoU 0.5. The goal: {goal}"
    if point is None:
        said += f", which is <b>never reached</b>: the most is {curve.greatest(goal.of):.3f}. Greatest F1"
    shown = point or best
    return (
        f"{said}, at score {shown.score:.3f}: precision {shown.precision:.3f}, recall "
        f"{shown.recall:.3f}, F1 {shown.f1:.3f}. Boxes below it are left out of what is judged at one "
        "score. --want-precision and --want-recall set the goal."
    )


def about_confusion(analysis: Analysis) -> str:
    """What the matrix counts."""
    classes = len(analysis.classes)
    few = (
        f" The {CONFUSED} classes with most errors of {classes}; confusion.csv has all."
        if classes > CONFUSED
        else ""
    )
    return (
        f"All boxes of score {analysis.threshold:.3f} or more, matched at IoU 0.5 whatever their class. "
        f"A row is a true class, a column a found one; the last ones are background.{few}"
    )


def _part(title: str, about: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{about}</p>{content}</section>"
