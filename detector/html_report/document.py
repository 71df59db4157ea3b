"""The page, section by section, and the files beside it."""

import csv
import json
from pathlib import Path

from detector.api.validation import Evaluation
from detector.errors import writing
from detector.evaluation import Analysis, ThresholdGoal
from detector.html_report.charts import MAX_CONFUSION_CLASSES, draw_all_charts
from detector.html_report.error_images import draw_label_errors, draw_worst_images, find_image_name
from detector.html_report.shapes import Drawing
from detector.html_report.style import SORT, STYLE
from detector.html_report.tables import (
    escape,
    make_class_table,
    make_confusion_table,
    make_metric_cards,
    make_operating_point_table,
    make_timing_table,
)


def write_report(folder: Path, evaluation: Evaluation, analysis: Analysis) -> Path:
    """Writes report.html, its charts and images as PNG, and three machine-readable files.

    Args:
        folder: created where it is missing.
        evaluation: if it has no images (a results file), neither does the report.
        analysis: of the same evaluation.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder or a file in it cannot be written.
    """
    path = folder / "report.html"
    charts = draw_all_charts(analysis, evaluation.ground_truth.names)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(path):
        write_data_files(folder, evaluation, analysis)
        sections = [
            make_heading(evaluation),
            make_metric_cards(evaluation),
            f'<div class="pair">{"".join(make_chart_sections(evaluation, analysis, charts))}</div>',
            *make_wide_sections(folder, evaluation, analysis, charts),
        ]
        path.write_text(make_page(evaluation.result.source, sections), encoding="utf-8")
    for chart in charts.values():
        chart.save_png(folder)
    return path


def write_data_files(folder: Path, evaluation: Evaluation, analysis: Analysis) -> None:
    """Writes label_errors.json, thresholds.json and confusion.csv, which hold all rows."""
    ids, names = evaluation.ground_truth.image_ids, evaluation.ground_truth.names
    label_errors = [
        {
            **error.as_json(),
            "image_id": int(ids[error.image]),
            "file": find_image_name(evaluation, error.image),
        }
        for error in analysis.label_errors
    ]
    (folder / "label_errors.json").write_text(json.dumps(label_errors, indent=1))
    (folder / "thresholds.json").write_text(json.dumps(analysis.thresholds_as_json(), indent=1))
    with (folder / "confusion.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        titles = [*names, "background"]
        rows.writerow(["true \\ found", *titles])
        rows.writerows([name, *row] for name, row in zip(titles, analysis.confusion, strict=True))


def make_page(title: str, sections: list[str]) -> str:
    """A self-contained HTML document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(sections)}<script>{SORT}</script></body></html>"
    )


def make_heading(evaluation: Evaluation) -> str:
    """The weights or results file, the model, and the settings of the evaluation."""
    result = evaluation.result
    about = f"{result.about['images']} images"
    if "size" in result.about:
        about += f" at {result.about['size']} px"
    for name in ("protocol", "precision"):
        if name in result.about:
            about += f", {name} {result.about[name]}"
    about += f", evaluated by {result.about['evaluator']}"
    if result.about.get("flip") or result.about.get("scales", [1]) != [1]:
        scales, flip = result.about["scales"], result.about["flip"]
        about += f", test-time augmentation: scales {scales}, flip {flip}"
    known = [word for word in (result.detector, result.activation) if word != "-"]
    metrics = "COCO's average precision and recall, in percent"
    if result.intervals is not None:
        metrics += ", with 95 % confidence intervals"
    return (
        f"<h1>{escape(result.source)}</h1><p>{escape(', '.join(known))}; {escape(about)}.</p>"
        f"<p>{metrics}:</p>"
    )


def make_chart_sections(
    evaluation: Evaluation, analysis: Analysis, charts: dict[str, Drawing]
) -> list[str]:
    """The sections that are laid out two in a row."""
    return [
        make_section(
            "Error analysis (dAP)",
            "How many points COCO's AP50 rises when all errors of one kind are corrected; in brackets, "
            "their number. The values do not add up, since the kinds overlap. The kinds are TIDE's "
            "(Bolya et al., 2020), whose own values differ where a corrected box falls on an object that "
            "another detection already matches.",
            charts["errors"].svg(),
        ),
        make_section(
            "AP by object size",
            "Size is the square root of the area, in pixels of the original image; in brackets, the "
            "number of objects.",
            charts["sizes"].svg(),
        ),
        make_section(
            "Precision-recall",
            "At IoU 0.5. Thin: each class. Thick: their mean.",
            charts["precision_recall"].svg(),
        ),
        make_section(
            "Calibration",
            "Precision against the mean score, by bins of score; on the dashed line, the score equals "
            "the probability that a detection is correct. Larger dots stand for more detections.",
            charts["calibration"].svg(),
        ),
        make_section("Confidence threshold", describe_threshold(analysis), charts["scores"].svg()),
        make_section(
            "F1 by class",
            "Thin: each class. Thick: all classes together. If the maxima of the classes lie far apart, "
            "choose a threshold per class: see the per-class table and thresholds.json.",
            charts["f1"].svg(),
        ),
        make_section(
            "Operating points",
            "All classes together, at IoU 0.5: the confidence threshold for each goal, and its precision "
            "and recall.",
            make_operating_point_table(analysis.curve),
        ),
        make_section(
            "Inference time", "Milliseconds per image, over batches.", make_timing_table(evaluation)
        ),
    ]


def make_wide_sections(
    folder: Path, evaluation: Evaluation, analysis: Analysis, charts: dict[str, Drawing]
) -> list[str]:
    """The sections of full width; their images are written to the folder."""
    names = evaluation.ground_truth.names
    return [
        make_section(
            "Per-class results",
            f"COCO's AP in percent, and the operating point of each class for {analysis.goal}, at IoU "
            "0.5. Click a column to sort by it.",
            make_class_table(evaluation, analysis),
        ),
        make_section(
            "Confusion matrix",
            describe_confusion(analysis),
            f'<div class="beside">{charts["confusion"].svg()}'
            f"{make_confusion_table(analysis.confusion, names)}</div>",
        ),
        make_section(
            "Images with the most errors",
            'Missed objects in <b class="gt">green</b>, false positives of score '
            f'{analysis.threshold:.3f} or more in <b class="detection">orange</b>; thin grey boxes are '
            "objects that were detected.",
            draw_worst_images(folder, evaluation, analysis),
        ),
        make_section(
            "Label errors",
            "Places where the label rather than the model may be wrong, the most probable first. Labels "
            'in <b class="gt">green</b>, detections in <b class="detection">orange</b>. All '
            f"{len(analysis.label_errors)} are in label_errors.json.",
            draw_label_errors(folder, evaluation, analysis.label_errors),
        ),
    ]


def describe_threshold(analysis: Analysis) -> str:
    """The confidence threshold, and the goal it was chosen for."""
    goal, point, curve = analysis.goal, analysis.point, analysis.curve
    best = curve.choose_point(ThresholdGoal())
    if best is None:
        return "There are no detections."
    about = f"All classes together, at IoU 0.5. Goal: {goal}"
    if point is None:
        maximum = curve.maximum(goal.metric)
        about += f", which is <b>not reached</b>: the maximum is {maximum:.3f}. Greatest F1"
    shown = point or best
    return (
        f"{about}, at score {shown.score:.3f}: precision {shown.precision:.3f}, recall "
        f"{shown.recall:.3f}, F1 {shown.f1:.3f}. The confusion matrix and the images below exclude "
        "detections of lower scores. --want-precision and --want-recall set another goal."
    )


def describe_confusion(analysis: Analysis) -> str:
    """What the confusion matrix counts."""
    classes = len(analysis.classes)
    few = ""
    if classes > MAX_CONFUSION_CLASSES:
        few = (
            f" Only the {MAX_CONFUSION_CLASSES} of {classes} classes with the most errors are shown; "
            "confusion.csv has all."
        )
    return (
        f"Detections of score {analysis.threshold:.3f} or more, matched at IoU 0.5 whatever their class. "
        "Rows are ground truth, columns are predictions. The background column counts missed objects, "
        f"the background row detections without an object.{few}"
    )


def make_section(title: str, about: str, content: str) -> str:
    """A section of the page; all arguments are HTML."""
    return f"<section><h2>{title}</h2><p>{about}</p>{content}</section>"
