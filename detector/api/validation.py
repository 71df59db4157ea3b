"""What tools/val.py does: evaluates weights or results files, one or several, and says how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.api.summary import print_skipped, require_known_classes
from detector.build import (
    build_evaluator,
    build_ground_truth,
    build_hardware,
    build_reader,
    build_val,
    draw_detections,
)
from detector.config import ActivationConfig, Config, PartActivations
from detector.data import ImageReader, ValSet
from detector.errors import UserError
from detector.evaluation import (
    METRICS,
    Analysis,
    CocoAP,
    GroundTruth,
    ModelResult,
    Resampler,
    Results,
    StageTimer,
    bootstrap,
    interval,
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
        row: its numbers.
        truth, results: what they were computed from.
        reader: the images; None where they are not at hand.
        val, shown: what was evaluated, what was found in the first; None and empty of a results file.
        timer: the time of each stage; None of a results file.
        notes: lines for the user.
    """

    row: ModelResult
    truth: GroundTruth
    results: Results
    reader: ImageReader | None
    val: ValSet | None
    shown: list[ImageDetections]
    timer: StageTimer | None
    notes: list[str]

    def draw(self, picture: Path) -> None:
        """The first images with their true boxes and with those found."""
        if self.val is not None:
            save_image(picture, draw_detections(self.val, self.shown))


def evaluate_weights(
    path: Path,
    overrides: Sequence[str],
    *,
    dataset: str | None,
    cfg: str | None,
    options: DarknetOptions | None,
) -> Evaluation:
    """Evaluates a .pt, a .weights or the best weights of a run folder; arguments as for `load_model`.

    Raises:
        UserError: as `load_model`; or the model knows other classes than the images.
    """
    path = path / "best.pt" if path.is_dir() else path
    loaded = load_model(path, overrides, dataset=dataset, cfg=cfg, options=options)
    config = loaded.config
    hardware, val = build_hardware(config), build_val(config)
    for line in [*loaded.notes, *val.reader.index.notes]:
        print(line)
    print_skipped([str(f) for f in val.reader.index.findings if f.skipped])
    require_known_classes(str(path), loaded.names, val)
    evaluator = build_evaluator(config, val, hardware)
    evaluator.timer = timer = StageTimer(hardware.device)
    metrics = evaluator(hardware.place(loaded.model))
    judge = evaluator.coco_ap
    assert judge.results is not None
    about = {
        "images": len(val),
        "size": config.data.size,
        "protocol": config.eval.protocol,
        "scales": list(config.eval.scales),
        "flip": config.eval.flip,
        "precision": hardware.precision,
        "device": str(hardware),
        "evaluator": str(judge.backend),
        "unreadable": evaluator.unreadable,
        "ms_per_image": timer.summary(),
    }
    left_out = [f"left out, its truths count as missed: {line}" for line in evaluator.unreadable]
    return Evaluation(
        row=ModelResult(
            str(path), config.model.arch, activation_name(config), metrics, about=about
        ),
        truth=judge.truth,
        results=judge.results,
        reader=val.reader,
        val=val,
        shown=evaluator.preview,
        timer=timer,
        notes=[*judge.truth.notes, *left_out],
    )


def evaluate_results(path: Path, truth: GroundTruth, backend: str) -> Evaluation:
    """Judges a results file in COCO's format; needs no image.

    Raises:
        UserError: as `read_results`.
    """
    judge = CocoAP(truth, backend=backend)
    results = read_results(path, truth)
    about = {"images": len(truth.image_ids), "evaluator": str(judge.backend)}
    row = ModelResult(str(path), path.stem, "-", judge(results), about=about)
    return Evaluation(row, truth, results, None, None, [], None, list(truth.notes))


def read_ground_truth(data: str | None) -> GroundTruth:
    """The validation truths of a data YAML, or of COCO's json, for results files.

    Raises:
        UserError: none is named, or it cannot be read.
    """
    if data is None:
        raise UserError("--results needs the truths: --data, a data YAML or COCO's json itself")
    return GroundTruth.from_coco(Path(data)) if data.endswith(".json") else build_ground_truth(data)


def add_images(outcome: Evaluation, data: str) -> None:
    """Lets the report of a results file show pictures, where a data YAML leads to the images."""
    if data.endswith(".json"):
        outcome.notes.append(
            "no pictures: --data names a json; a data YAML says where the images are"
        )
        return
    try:
        outcome.reader = build_reader(data)
    except UserError as error:
        outcome.notes.append(f"no pictures: {error}")


def add_intervals(outcomes: Sequence[Evaluation], *, resamples: int, seed: int) -> None:
    """Puts bootstrap intervals into the rows, and those of the differences to the first.

    Raises:
        UserError: the truths differ, so that there is no difference to speak of.
    """
    truth = outcomes[0].truth
    for other in outcomes[1:]:
        if not _same(truth, other.truth):
            raise UserError(
                f"{other.row.source}: it was evaluated on other images or truths than "
                f"{outcomes[0].row.source}; give all of them one --data for --interval"
            )
    models = [Resampler(truth, each.results) for each in outcomes]
    samples = bootstrap(models, len(truth.image_ids), seed=seed, resamples=resamples)
    numbers = np.array([list(each.row.metrics.values()) for each in outcomes])
    for number, each in enumerate(outcomes):
        each.row.bounds = interval(samples[number], numbers[number].tolist())
        if number:
            change = (numbers[number] - numbers[0]).tolist()
            bounds = interval(samples[number] - samples[0], change, lowest=-1)
            each.row.difference = list(zip(change, bounds, strict=True))


def _same(a: GroundTruth, b: GroundTruth) -> bool:
    names = ("image_ids", "image", "label", "boxes_xywh")
    return a.names == b.names and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in names
    )


def activation_name(config: Config) -> str:
    """As in a table: one name, or the parts' where they differ."""
    spec: Any = config.model.activation
    if config.model.darknet_cfg is not None:
        return "as in its cfg"
    if isinstance(spec, PartActivations):
        parts = [spec.backbone, spec.neck, spec.head]
        names = [part.name if isinstance(part, ActivationConfig) else part for part in parts]
        return "/".join(dict.fromkeys(names))
    return spec.name if isinstance(spec, ActivationConfig) else spec


def interval_lines(row: ModelResult) -> list[str]:
    """The twelve intervals, a line each."""
    lines = []
    for name, bounds in zip(METRICS, row.bounds or [], strict=True):
        text = "none" if bounds is None else f"{bounds[0]:.4f} .. {bounds[1]:.4f}"
        lines.append(f"  {name:<6} {text}")
    return lines


def points(analysis: Analysis) -> str:
    """The chosen thresholds, a line for all classes together and one for each."""
    goal, classes = analysis.goal, [one for one in analysis.classes if one.truths]
    lines = [("all together", analysis.curve, analysis.point)]
    lines += [(one.name, one.curve, one.point) for one in classes] if goal.of != "f1" else []
    width = max(len(name) for name, _, _ in lines)
    words = []
    for name, curve, point in lines:
        if point is None and not len(curve.score):
            said = "nothing found"
        elif point is None:
            said = f"never reached, at most {curve.greatest(goal.of):.3f}"
        else:
            said = (
                f"score {point.score:.3f}  precision {point.precision:.3f}  recall {point.recall:.3f}  "
                f"F1 {point.f1:.3f}"
            )
        words.append(f"  {name:<{width}}  {said}")
    return "\n".join([f"thresholds for the goal, {goal}:", *words])
