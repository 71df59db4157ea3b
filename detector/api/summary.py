"""Summaries that commands print, and checks that a model, a run and a data set belong together."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.build import build_network, draw_detections
from detector.data import Index, ValSet
from detector.data.checks import describe_findings
from detector.engine import Hardware
from detector.errors import UserError, writing
from detector.evaluation import Evaluator, TopKEvaluator, format_metrics
from detector.structures import Detections
from detector.visualize.draw import save_image
from detector.weights.darknet import Weights
from detector.weights.load import LoadedModel, build_with_weights, has_placeholder_names


def evaluate_model(
    loaded: LoadedModel,
    source: str,
    evaluator: Evaluator,
    val: ValSet,
    hardware: Hardware,
    picture: Path,
) -> str:
    """Evaluates a trained model and draws its detections in the first images; returns the table.

    Args:
        loaded: from `load_model`.
        source: the name of the weights in the table's title.
        evaluator, val: of the same images.
        hardware: where to run.
        picture: the file to draw to.

    Raises:
        UserError: the model was trained on other classes than the data set's.
    """
    require_known_classes(source, loaded.names, val)
    metrics = evaluator(hardware.place(loaded.model))
    save_image(picture, draw_detections(val, evaluator.preview))
    lines = [
        f"COCO AP of {source} on {len(val)} images, by {evaluator.coco_ap.backend}:",
        format_metrics(metrics),
    ]
    lines += [
        f"skipped, its ground truth counts as missed: {line}" for line in evaluator.unreadable
    ]
    lines += [f"picture: {picture}"]
    return "\n".join(lines)


def evaluate_classifier(
    weights: Weights, evaluator: TopKEvaluator, hardware: Hardware, table: Path
) -> str:
    """Evaluates a trained classifier and writes its confusion matrix; returns its accuracies as text.

    Args:
        weights: of a classifier, complete.
        evaluator: of the data set that it was trained on.
        hardware: where to run.
        table: the CSV to write: a row per ground-truth class, a column per predicted class.

    Raises:
        UserError: the weights are damaged, or the file cannot be written.
    """
    metrics = evaluator(hardware.place(build_with_weights(build_network, weights)))
    rows = [["", *weights.names]]
    for name, row in zip(weights.names, evaluator.confusion.tolist(), strict=True):
        rows.append([name, *map(str, row)])
    with writing(table), table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    lines = [
        f"{weights.source} on {int(evaluator.confusion.sum())} images: top-1 {metrics['top1']:.4f}, "
        f"top-5 {metrics['top5']:.4f}, cross-entropy {metrics['loss']:.4f}"
    ]
    lines += [f"skipped: {line}" for line in evaluator.unreadable]
    return "\n".join([*lines, f"confusion matrix: {table}"])


def require_known_classes(source: str, known: Sequence[str], val: ValSet) -> None:
    """Checks that a model was trained on the data set's classes.

    Where the model has only placeholder names, the number of classes has to agree.

    Raises:
        UserError: it was trained on others.
    """
    names = val.reader.index.names
    if tuple(known) != names and not (has_placeholder_names(known) and len(names) == len(known)):
        raise UserError(
            f"{source}: it was trained on {_count_names(known)}, but {val.reader.index.annotations} has "
            f"{_count_names(names)}; evaluate on the classes it was trained on"
        )


def require_same_classes(source: str, known: Sequence[str], names: Sequence[str]) -> None:
    """Checks that the data set of a run still has the classes it was trained on.

    Raises:
        UserError: they are others, or in another order.
    """
    if tuple(known) != tuple(names):
        raise UserError(
            f"{source}: it was trained on {_count_names(known)}, but the data set now has "
            f"{_count_names(names)}; a run resumes only with the same classes; to start a new run from "
            f"its weights: --cfg ... --weights {source}"
        )


def require_same_data(source: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Checks that the data set of a run still has the same number of training images.

    Args:
        source: of the run's state.
        before, now: from `describe_data`; `before` is empty for files that older versions wrote.

    Returns:
        A line for each split whose files, boxes or classes have changed.

    Raises:
        UserError: it has more or fewer, so the run's position in its epoch is meaningless.
    """
    if not before:
        return []
    count, counts_now = before["train"]["images"], now["train"]["images"]
    if count != counts_now:
        raise UserError(
            f"{source}: it was trained on {count} images, but the data set now has {counts_now}; a run "
            f"resumes only with the same images; to start a new run from its weights: --cfg ... "
            f"--weights {source}"
        )
    effects = {
        "train": "the run will differ from one that was never interrupted",
        "val": "AP may jump",
    }
    return [
        f"file names, boxes or classes of the {split} split have changed: {effect}"
        for split, effect in effects.items()
        if before[split]["digest"] != now[split]["digest"]
    ]


def _count_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 3 else ''})"


def describe_detections(detections: Detections, names: Sequence[str]) -> str:
    """The number of detections of each class: `2 x person, 1 x dog`, the most frequent first."""
    counts = Counter(names[label] for label in detections.labels.tolist())
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common()) or "no detections"


def print_findings(split: str, index: Index) -> None:
    """Prints what the reader of a split skipped, and what it reports of images and categories."""
    print_skipped([str(finding) for finding in index.findings if finding.skipped])
    for line in describe_findings({split: index}):
        print(line)


def print_skipped(lines: list[str], *, limit: int = 10) -> None:
    """Prints what was skipped, one line each up to `limit`, then how many more there are."""
    for line in lines[:limit]:
        print(f"skipped: {line}")
    if len(lines) > limit:
        print(f"skipped: ... and {len(lines) - limit} more")
