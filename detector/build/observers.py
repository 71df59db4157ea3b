"""The observers of a run: run folder, console, trackers."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.anchors import flatten_anchors
from detector.build.data import Data, describe_data, require_batch_size
from detector.build.model import build_anchors, is_classifier
from detector.config import MIN_TILE_BUFFER, Config, config_to_dict
from detector.config.duration import parse_duration
from detector.data import ImageStore, ValSet
from detector.data.checks import plot_labels
from detector.engine import (
    TRACKERS,
    CheckpointInterval,
    CheckpointSaver,
    Console,
    CsvLog,
    EventLog,
    LastEvaluation,
    Manifest,
    Observer,
    RunFolder,
    RunPlots,
    ThroughputMonitor,
    TrackerLog,
    TrainBatchPicture,
    ValBatchPicture,
    require_trackers,
)
from detector.evaluation import Evaluator, TopKEvaluator, save_accuracies, save_detections
from detector.structures import ImageDetections
from detector.visualize.predictions import draw_ground_truth_and_detections


def build_observers(
    config: Config,
    data: Data,
    folder: RunFolder,
    evaluator: Evaluator | TopKEvaluator,
    notes: Sequence[str] = (),
) -> list[Observer]:
    """All observers of a run, in the order in which they are notified.

    Logs come before the checkpoint saver, since a checkpoint records how many of their rows and points
    belong to it.

    Args:
        config: of the run.
        data: of the run.
        folder: of the run.
        evaluator: whose detections in the first images are drawn; a classifier's has none.
        notes: what was printed about the run before it started, for the manifest.

    Raises:
        UserError: a tracker of `train.log` is not installed.
    """
    log = build_tracker_log(config, folder)
    values, about = config_to_dict(config), describe_data(data)
    return [
        Manifest(folder.manifest, config=values, data=about, notes=notes),
        EventLog(folder.events),
        CsvLog(folder.results),
        log,
        TrainBatchPicture(folder.train_batch, data.names, log.log_image),
        *build_val_picture(folder, data, evaluator, log),
        LastEvaluation(functools.partial(save_evaluation, folder.evaluation, evaluator)),
        RunPlots(folder.curves, folder.labels, functools.partial(draw_labels, config, data)),
        CheckpointSaver(
            folder,
            config=values,
            names=data.names,
            data=about,
            every=build_checkpoint_interval(config.train.checkpoint_every),
        ),
        Console(),
        build_throughput_monitor(config, data.train.reader.store),
    ]


def build_val_picture(
    folder: RunFolder, data: Data, evaluator: Evaluator | TopKEvaluator, log: TrackerLog
) -> list[Observer]:
    """The picture of detections at each evaluation; none for a classifier."""
    if isinstance(evaluator, TopKEvaluator):
        return []
    return [
        ValBatchPicture(
            folder.val, lambda: draw_detections(data.val, evaluator.preview), log.log_image
        )
    ]


def save_evaluation(path: Path, evaluator: Evaluator | TopKEvaluator) -> None:
    """Writes what the newest evaluation found in each image; nothing if there was none.

    Raises:
        UserError: the file cannot be written.
    """
    if isinstance(evaluator, TopKEvaluator):
        save_accuracies(path, *evaluator.get_images())
    elif evaluator.coco_ap.results is not None:
        save_detections(path, evaluator.coco_ap.ground_truth, evaluator.coco_ap.results)


def build_throughput_monitor(config: Config, store: ImageStore | None) -> ThroughputMonitor:
    """The monitor that reports whether loader or network is the bottleneck.

    It suggests keys that could speed up the loader, unless it already reads through a `store`.
    """
    positions = max(4 * require_batch_size(config), MIN_TILE_BUFFER)
    keys = ["data.cache=ram", "data.cache=disk", f"data.tile_buffer={positions}"]
    advice = ", ".join(keys) if store is None else ""
    return ThroughputMonitor(workers=config.data.workers, advice=advice)


def build_tracker_log(config: Config, folder: RunFolder) -> TrackerLog:
    """The log that passes curves and pictures on to the trackers of `train.log`.

    Raises:
        UserError: one of them is not installed.
    """
    require_trackers(config.train.log)
    values = config_to_dict(config)
    openers = [functools.partial(TRACKERS[name], folder.path, values) for name in config.train.log]
    return TrackerLog(openers, norms_every=config.train.norms_every)


def draw_detections(val: ValSet, shown: Sequence[ImageDetections]) -> np.ndarray:
    """Validation images with their ground truth and, beside it, the detections of `Evaluator.preview`."""
    samples = val.reader.read_ids(each.image_id for each in shown)
    return draw_ground_truth_and_detections(samples, shown, val.reader.index.names)


def draw_labels(config: Config, data: Data, path: Path) -> None:
    """Draws the training labels with the model's anchors, if it has any, among them."""
    anchors = None
    if not is_classifier(config.model):
        anchors = np.array(flatten_anchors(build_anchors(config.model, len(data.names))))
    plot_labels(path, data.train.reader.index, size=config.data.size, anchors=anchors)


def build_checkpoint_interval(setting: int | str) -> CheckpointInterval:
    """Steps, or a duration such as "10m"."""
    if isinstance(setting, int):
        return CheckpointInterval(steps=setting)
    return CheckpointInterval(seconds=parse_duration(setting))
