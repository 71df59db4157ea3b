"""Runs all checks of a data set."""

import time

import numpy as np

from detector.data.checks.check_report import DatasetReport
from detector.data.checks.duplicates import check_duplicates
from detector.data.checks.images import check_images, scan_images
from detector.data.checks.labels import Splits, check_labels, summarise_split
from detector.data.checks.problems import Problem, sort_problems
from detector.data.readers.coco import read_json


def check_dataset(
    name: str,
    splits: Splits,
    *,
    size: int,
    anchors: np.ndarray | None = None,
    ratio: float = 4.0,
    decode: bool = True,
    workers: int = 1,
) -> DatasetReport:
    """Checks the labels and, if `decode`, every image file of a data set.

    Args:
        name: of the data set, for the report.
        splits: indices by name, "train" first.
        size: of the training image, pixels.
        anchors: [k, 2], pixels; None: their fit is not checked.
        ratio: below which an anchor matches a box, see `loss.anchor_ratio`.
        decode: whether to read and decode every image file; there are none of CIFAR and the like.
        workers: threads for that.
    """
    problems = check_labels(splits, size=size, anchors=anchors, ratio=ratio) + _find_id_zero(splits)
    scan = "images not opened"
    if decode and all(index.pixels is None for index in splits.values()):
        started = time.perf_counter()
        scans = {
            split: scan_images(split, index, workers=workers) for split, index in splits.items()
        }
        seconds = time.perf_counter() - started
        problems += check_images(splits, scans) + check_duplicates(splits, scans)
        total = sum(map(len, splits.values()))
        scan = f"{total:,} images decoded, {total / max(seconds, 1e-9):,.0f} images/s"
    return DatasetReport(
        name=name,
        size=size,
        splits=[
            summarise_split(split, index, size=size, anchors=anchors, ratio=ratio)
            for split, index in splits.items()
        ],
        problems=sort_problems(problems),
        scan=scan,
    )


def _find_id_zero(splits: Splits) -> list[Problem]:
    """Finds annotations with id 0; reads COCO's json again, since the index has no annotation ids."""
    examples, total = [], 0
    for index in splits.values():
        if index.annotations.suffix == ".json":
            content = read_json(index.annotations, labelled=False)
            ids = [entry["id"] for entry in content.annotations]
            total += len(ids)
            examples += [f"{index.annotations.name}: annotation 0"] * ids.count(0)
    return [Problem.collect("annotation id 0", len(examples), total, examples)] if examples else []
