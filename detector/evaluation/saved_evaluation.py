"""evaluation.npz: what the last evaluation of a run found in each image, to resample the images later.

Files of two evaluations of the same images can be compared without the data set and without the networks.
"""

import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detector.errors import UserError, reading, writing
from detector.evaluation.coco_ap import METRICS
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.intervals import Resampler

GROUND_TRUTH = ("image_ids", "category_ids", "image", "label", "boxes_xywh", "area", "crowd")


class ImageResampler(Protocol):
    """The metrics of an evaluation for any multiset of its images."""

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """float64 [metrics], of images that each count `weights` [images] times; -1 without any."""
        ...


class SavedEvaluation:
    """The content of an evaluation.npz.

    Attributes:
        metrics: names of the metrics.
        num_images: how many were evaluated.
        ground_truth: arrays by name, which are equal if the images are the same.
        resampler: the metrics of any multiset of the images.
    """

    def __init__(
        self,
        metrics: tuple[str, ...],
        num_images: int,
        ground_truth: dict[str, np.ndarray],
        resampler: ImageResampler,
    ) -> None:
        self.metrics, self.num_images = metrics, num_images
        self.ground_truth, self.resampler = ground_truth, resampler

    def has_same_images(self, other: "SavedEvaluation") -> bool:
        """Whether both are of the same images with the same ground truth."""
        return self.ground_truth.keys() == other.ground_truth.keys() and all(
            np.array_equal(values, other.ground_truth[name])
            for name, values in self.ground_truth.items()
        )


class ShareResampler:
    """Means over the images: of hits, an accuracy."""

    def __init__(self, values: np.ndarray) -> None:
        """`values`: float64 [images, metrics]."""
        self.values = values

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """As `ImageResampler`."""
        total = weights.sum()
        return weights @ self.values / total if total else np.full(self.values.shape[1], -1.0)


def save_detections(path: Path, ground_truth: GroundTruth, results: Results) -> None:
    """Writes ground truth and detections of an evaluation; AP computed from the file has the same bits.

    Raises:
        UserError: the file cannot be written.
    """
    corners = results.boxes_xywh.copy()
    corners[:, 2:] += corners[:, :2]  # which were float32; widths take double the bits
    detections = {
        "detection_image": results.image.astype(np.int32),
        "detection_label": results.label.astype(np.int32),
        "detection_boxes_xyxy": corners.astype(np.float32),
        "detection_score": results.score.astype(np.float32),
    }
    truth = {name: getattr(ground_truth, name) for name in GROUND_TRUTH}
    _save(path, {**truth, "names": np.array(ground_truth.names), **detections})


def save_accuracies(
    path: Path, image_ids: np.ndarray, labels: np.ndarray, values: dict[str, np.ndarray]
) -> None:
    """Writes what a classifier's evaluation found in each image.

    Args:
        path: of the file.
        image_ids: int64 [n].
        labels: int64 [n], of the ground truth.
        values: by metric, float [n]: hits, losses, whose mean is the metric.

    Raises:
        UserError: the file cannot be written.
    """
    columns = {f"value_{name}": column for name, column in values.items()}
    _save(path, {"image_ids": image_ids, "label": labels, **columns})


def load_evaluation(path: Path) -> SavedEvaluation:
    """Reads what `save_detections` or `save_accuracies` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with reading(path), path.open("rb") as file, np.load(file) as content:
            arrays = dict(content)
        if "detection_score" in arrays:
            return _restore_detections(arrays)
        names = [name for name in arrays if name.startswith("value_")]
        values = np.stack([arrays[name].astype(np.float64) for name in names], 1)
        truth = {"image_ids": arrays["image_ids"], "label": arrays["label"]}
        metrics = tuple(name.removeprefix("value_") for name in names)
        return SavedEvaluation(metrics, len(values), truth, ShareResampler(values))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a readable evaluation of a run ({error}); delete it"
        ) from None


def _restore_detections(arrays: dict[str, np.ndarray]) -> SavedEvaluation:
    truth: dict[str, Any] = {name: arrays[name] for name in GROUND_TRUTH}
    ground_truth = GroundTruth(names=tuple(arrays["names"].tolist()), **truth)
    boxes = arrays["detection_boxes_xyxy"].astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    results = Results(
        image=arrays["detection_image"].astype(np.int64),
        label=arrays["detection_label"].astype(np.int64),
        boxes_xywh=boxes,
        score=arrays["detection_score"].astype(np.float64),
    )
    count = len(ground_truth.image_ids)
    return SavedEvaluation(METRICS, count, truth, Resampler(ground_truth, results))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    new = path.with_suffix(".new")
    with writing(path):
        with new.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        new.replace(path)
