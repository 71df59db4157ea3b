"""What commands say at their end: the numbers of a checkpoint, and pictures of what it finds."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detector.data import ValSet
from detector.draw import save_image
from detector.engine import Hardware
from detector.errors import UserError
from detector.evaluation import Evaluator, table
from detector.pictures import true_and_found
from detector.pretrained import Loaded, nameless
from detector.structures import Detections


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
    save_image(picture, true_and_found(val, evaluator.shown, val.reader.index.names))
    lines = [
        f"COCO AP of {source} on {len(val)} images, by {evaluator.judge.backend}:",
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


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 3 else ''})"


def summary(detections: Detections, names: Sequence[str]) -> str:
    """What was found, in words: `2 x person, 1 x dog`, the most frequent first."""
    counts = Counter(names[label] for label in detections.labels.tolist())
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common()) or "nothing"
