"""Evaluating weights or results files, one or several, with confidence intervals and thresholds.

`tools/val.py` is a command line for these functions; `detector.html_report` writes the report page.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.api.summary import print_findings, require_known_classes
from detector.build import (
    build_evaluator,
    build_ground_truth,
    build_hardware,
    build_reader,
    build_val,
    describe_evaluation,
    describe_network,
    draw_detections,
)
from detector.data import ImageReader, ValSet
from detector.errors import UserError, writing
from detector.evaluation import (
    CocoAP,
    GroundTruth,
    ModelResult,
    Results,
    StageTimer,
    compare_models,
    format_intervals,
    format_metrics,
    read_results,
)
from detector.structures import ImageDetections
from detector.visualize.draw import save_image
from detector.weights.darknet import DarknetOptions
from detector.weights.load import load_model


@dataclass(slots=True)
class Evaluation:
    """One evaluation and what it came from.

    Attributes:
        result: its numbers.
        ground_truth, results: what they were computed from.
        reader: the images; None where they are not available.
        val: the evaluated split; None for a results file.
        preview: detections in the first images; empty for a results file.
        timer: the time of each stage; None for a results file.
        notes: lines for the user.
    """

    result: ModelResult
    ground_truth: GroundTruth
    results: Results
    reader: ImageReader | None
    val: ValSet | None
    preview: list[ImageDetections]
    timer: StageTimer | None
    notes: list[str]

    def draw(self, picture: Path) -> None:
        """Draws the first images, with their ground truth and with their detections."""
        if self.val is not None:
            save_image(picture, draw_detections(self.val, self.preview))


def evaluate_weights(
    path: Path,
    overrides: Sequence[str],
    *,
    dataset: str | None,
    cfg: str | None,
    options: DarknetOptions | None,
) -> Evaluation:
    """Evaluates a .pt, a .weights or the best weights of a run folder; arguments as for `load_model`.

    Prints the notes of `load_model` and of the annotation reader.

    Raises:
        UserError: as `load_model`; or the model was trained on other classes than the data set's.
    """
    path = path / "best.pt" if path.is_dir() else path
    loaded = load_model(path, overrides, dataset=dataset, cfg=cfg, options=options)
    config = loaded.config
    hardware, val = build_hardware(config), build_val(config)
    for line in [*loaded.notes, *val.reader.index.notes]:
        print(line)
    print_findings("val", val.reader.index)
    require_known_classes(str(path), loaded.names, val)
    evaluator = build_evaluator(config, val, hardware)
    evaluator.timer = timer = StageTimer(hardware.device)
    metrics = evaluator(hardware.place(loaded.model))
    coco_ap = evaluator.coco_ap
    assert coco_ap.results is not None
    about = {
        "images": len(val),
        **describe_evaluation(config),
        "precision": hardware.precision,
        "device": str(hardware),
        "evaluator": str(coco_ap.backend),
        "unreadable": evaluator.unreadable,
        "ms_per_image": timer.summary(),
    }
    arch, activation = describe_network(config.model)
    return Evaluation(
        result=ModelResult(str(path), arch, activation, metrics, about=about),
        ground_truth=coco_ap.ground_truth,
        results=coco_ap.results,
        reader=val.reader,
        val=val,
        preview=evaluator.preview,
        timer=timer,
        notes=[*coco_ap.ground_truth.notes, *describe_unreadable(evaluator.unreadable)],
    )


def describe_unreadable(lines: Sequence[str]) -> list[str]:
    """A line for each image that could not be read during an evaluation."""
    return [f"skipped, its ground truth counts as missed: {line}" for line in lines]


def evaluate_results(path: Path, ground_truth: GroundTruth, backend: str) -> Evaluation:
    """Evaluates a results file in COCO's format; needs no images.

    Raises:
        UserError: as `read_results`.
    """
    coco_ap = CocoAP(ground_truth, backend=backend)
    results = read_results(path, ground_truth)
    about = {"images": len(ground_truth.image_ids), "evaluator": str(coco_ap.backend)}
    result = ModelResult(str(path), path.stem, "-", coco_ap(results), about=about)
    notes = list(ground_truth.notes)
    return Evaluation(result, ground_truth, results, None, None, [], None, notes)


def read_ground_truth(data: str | None) -> GroundTruth:
    """The ground truth for results files: a data YAML's validation split, or COCO's json.

    Raises:
        UserError: none is named, or it cannot be read.
    """
    if data is None:
        raise UserError(
            "--results needs the ground truth: give --data, a data YAML or COCO's json file"
        )
    if data.endswith(".json"):
        return GroundTruth.from_coco(Path(data))
    return build_ground_truth(data)


def attach_images(evaluation: Evaluation, data: str) -> None:
    """Gives an evaluation of a results file its images, if a data YAML says where they are."""
    if data.endswith(".json"):
        evaluation.notes.append(
            "no pictures: --data names a json file; only a data YAML says where the images are"
        )
        return
    try:
        evaluation.reader = build_reader(data)
    except UserError as error:
        evaluation.notes.append(f"no pictures: {error}")


def add_intervals(evaluations: Sequence[Evaluation], *, resamples: int, seed: int) -> None:
    """Computes confidence intervals, and those of the differences to the first evaluation.

    Raises:
        UserError: the evaluations do not share one ground truth, so they cannot be compared.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if not _same_ground_truth(first.ground_truth, other.ground_truth):
            raise UserError(
                f"{other.result.source}: its images or ground truth differ from those of "
                f"{first.result.source}; --interval compares on one data set: give it with --data"
            )
    compare_models(
        [each.result for each in evaluations],
        first.ground_truth,
        [each.results for each in evaluations],
        resamples=resamples,
        seed=seed,
    )


def _same_ground_truth(a: GroundTruth, b: GroundTruth) -> bool:
    columns = ("image_ids", "image", "label", "boxes_xywh")
    return a.names == b.names and all(
        np.array_equal(getattr(a, column), getattr(b, column)) for column in columns
    )


def format_evaluation(evaluation: Evaluation, resamples: int | None = None) -> str:
    """The twelve numbers, their intervals, the time of each stage and the notes, for the terminal."""
    result = evaluation.result
    images, evaluator = result.about["images"], result.about["evaluator"]
    lines = [
        f"COCO AP of {result.source} on {images} images, by {evaluator}:",
        format_metrics(result.metrics),
    ]
    if result.intervals is not None:
        lines += [f"95 % confidence intervals, {resamples} resamples:"]
        lines += [format_intervals(result.intervals)]
    if evaluation.timer is not None:
        lines += [str(evaluation.timer)]
    return "\n".join([*lines, *evaluation.notes])


def write_metrics(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes the numbers of all evaluations as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path):
        path.write_text(json.dumps([each.result.as_json() for each in evaluations], indent=1))
