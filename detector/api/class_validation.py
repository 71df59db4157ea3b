"""Evaluating a classifier's weights: accuracies with intervals, and what the report page needs."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.api.summary import print_findings, require_known_classes
from detector.build import (
    build_hardware,
    build_network,
    build_run_evaluator,
    build_val,
    describe_network,
    is_classifier,
)
from detector.config import config_from_dict, config_to_dict
from detector.data import ImageReader
from detector.errors import UserError, reading
from detector.evaluation import ClassAnalysis, TopKEvaluator, analyse_classes
from detector.weights.load import build_with_weights, read_weights


@dataclass(frozen=True, slots=True, eq=False)
class ClassEvaluation:
    """One evaluation of a classifier.

    Attributes:
        source: the weights.
        about: network, activation, images, size and device, in words.
        analysis: its numbers.
        reader: the images.
        history: rows of the run's results.csv, an epoch each; empty if it is not beside the weights.
        unreadable: a line for each image that could not be read; they are not counted.
    """

    source: str
    about: str
    analysis: ClassAnalysis
    reader: ImageReader
    history: list[dict[str, float]]
    unreadable: list[str]

    def format_text(self) -> str:
        """The accuracies in a few lines."""
        a = self.analysis
        lines = [f"{self.source}: {self.about}"]
        for name, each in (("top-1", a.top1), ("top-5", a.top5)):
            lines.append(
                f"  {name}  {100 * each.value:.2f}   95 % interval {100 * each.low:.2f} to "
                f"{100 * each.high:.2f}"
            )
        lines.append(f"  cross-entropy {a.loss:.4f}, calibration error {a.calibration_error:.4f}")
        return "\n".join([*lines, *(f"skipped: {line}" for line in self.unreadable)])


def holds_classifier(path: Path) -> bool:
    """Whether a checkpoint, or the best one of a run folder, is a classifier's.

    Raises:
        UserError: it is missing or damaged.
    """
    path = path / "best.pt" if path.is_dir() else path
    return path.suffix == ".pt" and is_classifier(read_weights(path).config.model)


def evaluate_class_weights(
    path: Path, overrides: Sequence[str], *, dataset: str | None
) -> ClassEvaluation:
    """Evaluates a classifier's .pt, or the best weights of a run folder, on a validation split.

    Args:
        path: of the weights or the run folder.
        overrides: `key=value`, such as data.size=256.
        dataset: a data YAML; None: the one trained on.

    Raises:
        UserError: the weights or the data cannot be read or do not belong together; no readable images.
    """
    path = path / "best.pt" if path.is_dir() else path
    weights = read_weights(path)
    config = config_from_dict(config_to_dict(weights.config), str(path), overrides, data=dataset)
    hardware, val = build_hardware(config), build_val(config)
    print_findings("val", val.reader.index)
    require_known_classes(str(path), weights.names, val)
    evaluator = build_run_evaluator(config, val, hardware)
    assert isinstance(evaluator, TopKEvaluator), "holds_classifier comes first"
    evaluator(hardware.place(build_with_weights(build_network, weights)))
    if not len(evaluator.images):
        raise UserError(f"{val.reader.index.annotations}: none of its images can be read")
    arch, activation = describe_network(config.model)
    count = len(evaluator.images)
    return ClassEvaluation(
        source=str(path),
        about=f"{arch}, {activation}; {count} images at {config.data.size} px, {hardware}",
        analysis=analyse_classes(evaluator.images.numpy(), val.reader.index.names),
        reader=val.reader,
        history=read_history(path.parent / "results.csv"),
        unreadable=evaluator.unreadable,
    )


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a results.csv without its empty cells; none if there is no such file.

    Raises:
        UserError: it is not one.
    """
    if not path.is_file():
        return []
    try:
        with reading(path), path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(text) for name, text in row.items() if text} for row in rows]
    except (ValueError, TypeError):
        raise UserError(f"{path}: not a results.csv of a run; move it away") from None
