"""What commands say at their end: the numbers of a checkpoint, and pictures of what it finds."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.build import draw_detections
from detector.data import ValSet
from detector.engine import Hardware
from detector.errors import UserError
from detector.evaluation import Evaluator, table
from detector.structures import Detections
from detector.visualize.draw import save_image
from detector.weights.load import Loaded, nameless


def evaluate_model(
    loaded: Loaded,
    source: str,
    evaluator: Evaluator,
    val: ValSet,
    hardware: Hardware,
    picture: Path,
) -> str:
    """Evaluates a trained model and draws what it found in the first images; returns the table.

    Args:
        loaded: from `load_model`.
        source: the name of the weights in the table's title.
        evaluator, val: of the same images.
        hardware: where to run.
        picture: the file to draw to.

    Raises:
        UserError: the model knows other classes than the images.
    """
    require_known_classes(source, loaded.names, val)
    metrics = evaluator(hardware.place(loaded.model))
    save_image(picture, draw_detections(val, evaluator.preview))
    lines = [
        f"COCO AP of {source} on {len(val)} images, by {evaluator.coco_ap.backend}:",
        table(metrics),
    ]
    lines += [f"left out, its truths count as missed: {line}" for line in evaluator.unreadable]
    lines += [f"picture: {picture}"]
    return "\n".join(lines)


def require_known_classes(source: str, known: Sequence[str], val: ValSet) -> None:
    """Ends where a model knows other classes than the images; a model may know numbers only.

    Raises:
        UserError: it knows others.
    """
    names = val.reader.index.names
    if tuple(known) != names and not (nameless(known) and len(names) == len(known)):
        raise UserError(
            f"{source}: it knows {_some(known)}, but {val.reader.index.annotations} has "
            f"{_some(names)}; evaluate on the classes it was trained on"
        )


def require_same_classes(source: str, known: Sequence[str], names: Sequence[str]) -> None:
    """Ends where a run cannot go on because its data set has other classes now.

    Raises:
        UserError: they are others, or stand in another order.
    """
    if tuple(known) != tuple(names):
        raise UserError(
            f"{source}: it was trained on {_some(known)}, but the data set now has {_some(names)}; a "
            f"run goes on with the same classes only; start another one from it: --cfg ... "
            f"--weights {source}"
        )


def require_same_data(source: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Ends where a run cannot go on because its data set has other images now.

    Args:
        source: of the run's state.
        before, now: as `describe_data` has them; nothing is known of a file of before there were any.

    Returns:
        A line for each split that has as many images, but not the same.

    Raises:
        UserError: epochs have another length, so that the run's place in them means nothing.
    """
    if not before:
        return []
    count, counts_now = before["train"]["images"], now["train"]["images"]
    if count != counts_now:
        raise UserError(
            f"{source}: it was trained on {count} images, but the data set now has {counts_now}; a run "
            f"goes on with the same images only; start another one from it: --cfg ... "
            f"--weights {source}"
        )
    effects = {"train": "the rest is not that of a run that never stopped", "val": "AP may jump"}
    return [
        f"the {split} split has other file names, boxes or classes than before: {effect}"
        for split, effect in effects.items()
        if before[split]["digest"] != now[split]["digest"]
    ]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 3 else ''})"


def summary(detections: Detections, names: Sequence[str]) -> str:
    """What was found, in words: `2 x person, 1 x dog`, the most frequent first."""
    counts = Counter(names[label] for label in detections.labels.tolist())
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common()) or "nothing"


def print_skipped(lines: list[str], *, limit: int = 10) -> None:
    """Names what was skipped, a line each up to `limit`, and counts the rest."""
    for line in lines[:limit]:
        print(f"skipped: {line}")
    if len(lines) > limit:
        print(f"skipped: ... and {len(lines) - limit} more")
