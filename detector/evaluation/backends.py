"""The backends that compute COCO's AP: pycocotools, which defines it, and hotcoco, which is fast.

Both get the same checked arrays and give the same bits (`tests/evaluation/test_backends.py`).
"""

import contextlib
import importlib.metadata
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.boxes import coco_annotations
from detector.errors import UserError
from detector.evaluation.ground_truth import GroundTruth, Results

try:
    import hotcoco
except ImportError:  # optional: the same numbers in a fraction of the time
    hotcoco = None

HOTCOCO_FLOOR = (1, 3)  # numbers of earlier versions differ from pycocotools' by up to 1e-14

# (label, smallest area, largest area), px^2, of COCO's parameters
AreaRange = tuple[str, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """The numbers that a backend computes from one set of results.

    T = 10 IoU thresholds 0.50:0.05:0.95, R = 101 recalls 0:0.01:1, A = area ranges (all, small, medium,
    large), M = detections per image and class (1, 10, 100). -1 where there is no ground truth.

    Attributes:
        stats: float64 [12], COCO's numbers; empty for other area ranges.
        precision: float64 [T, R, classes, A, M], the maximum at a recall of at least r.
        scores: float64 [T, R, classes, A, M], the score at which it is reached.
        recall: float64 [T, classes, A, M].
    """

    stats: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True, slots=True)
class Backend:
    """An implementation of COCO's evaluation; `str` gives its name and version."""

    name: str
    evaluate: Callable[[GroundTruth, Results, Sequence[AreaRange] | None], CocoResult]

    def __str__(self) -> str:
        return f"{self.name} {importlib.metadata.version(self.name)}"


def choose_backend(name: str) -> Backend:
    """The backend of that name; auto is hotcoco where it is installed and new enough.

    Raises:
        UserError: no such backend; or hotcoco is requested but missing or too old.
    """
    if name not in ("auto", "hotcoco", "pycocotools"):
        raise UserError(f"eval.backend {name!r}: expected auto, hotcoco or pycocotools")
    fast = hotcoco is not None and _version(hotcoco) >= HOTCOCO_FLOOR
    if name == "hotcoco" and not fast:
        state = "is not installed" if hotcoco is None else f"{hotcoco.__version__} is too old"
        raise UserError(
            f"eval.backend: hotcoco {state}; pip install 'hotcoco>=1.3,<2', or use auto or pycocotools"
        )
    if name == "pycocotools" or not fast:
        return Backend("pycocotools", evaluate_with_pycocotools)
    return Backend("hotcoco", evaluate_with_hotcoco)


def _version(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


def evaluate_with_pycocotools(
    ground_truth: GroundTruth, results: Results, areas: Sequence[AreaRange] | None = None
) -> CocoResult:
    """Evaluates with COCO's own code; some 40 s and 2 GB for COCO's 5000 images.

    Args:
        ground_truth, results: checked.
        areas: replace COCO's four area ranges.
    """
    images, categories = _entries(ground_truth)
    annotations = coco_annotations(
        ground_truth.image + 1,
        ground_truth.category_ids[ground_truth.label],
        ground_truth.boxes_xywh,
        ground_truth.area,
        ground_truth.crowd,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco_gt = _coco(images, categories, annotations)
        coco_dt = _coco(images, categories, [])
        if len(results):  # loadRes fails on an empty list
            rows = _result_rows(ground_truth, results)
            coco_dt = coco_gt.loadRes(rows)  # pyright: ignore[reportArgumentType]
        return _run_coco_eval(ground_truth, COCOeval(coco_gt, coco_dt, "bbox"), areas)


def evaluate_with_hotcoco(
    ground_truth: GroundTruth, results: Results, areas: Sequence[AreaRange] | None = None
) -> CocoResult:
    """Evaluates with hotcoco; some 0.5 s and 0.15 GB for COCO's 5000 images.

    Args:
        ground_truth, results: checked.
        areas: replace COCO's four area ranges.
    """
    assert hotcoco is not None, (
        "choose_backend returns this function only where hotcoco is installed"
    )
    coco_gt = hotcoco.COCO.from_arrays(
        *_entries(ground_truth),
        ground_truth.image + 1,
        ground_truth.category_ids[ground_truth.label],
        ground_truth.boxes_xywh,
        area=ground_truth.area,
        iscrowd=ground_truth.crowd,
    )
    coco_dt = coco_gt.load_res(_result_rows(ground_truth, results))
    with contextlib.redirect_stdout(io.StringIO()):
        return _run_coco_eval(ground_truth, hotcoco.COCOeval(coco_gt, coco_dt, "bbox"), areas)


def _run_coco_eval(
    ground_truth: GroundTruth, coco_eval: Any, areas: Sequence[AreaRange] | None
) -> CocoResult:
    """Runs a COCOeval of either backend; hotcoco has pycocotools' interface."""
    if areas is not None:
        params = coco_eval.params
        params.areaRngLbl = [name for name, _, _ in areas]
        params.areaRng = [[low, high] for _, low, high in areas]
        coco_eval.params = params
    coco_eval.evaluate()
    coco_eval.accumulate()
    if areas is None:
        coco_eval.summarize()
    by_label = np.argsort(np.argsort(ground_truth.category_ids))  # COCOeval sorts by category id
    return CocoResult(
        stats=np.array(coco_eval.stats if areas is None else [], np.float64),
        precision=coco_eval.eval["precision"][:, :, by_label],
        scores=coco_eval.eval["scores"][:, :, by_label],
        recall=coco_eval.eval["recall"][:, by_label],
    )


def _entries(ground_truth: GroundTruth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images and categories; images are numbered from 1 in the order of their ids, which decides ties."""
    images = [{"id": number} for number in range(1, len(ground_truth.image_ids) + 1)]
    return images, [{"id": i, "name": str(i)} for i in ground_truth.category_ids.tolist()]


def _result_rows(ground_truth: GroundTruth, results: Results) -> np.ndarray:
    """The results as float64 [d, 7]: image, x, y, width, height, score, category."""
    rows = np.empty((len(results), 7))
    rows[:, 0] = results.image + 1
    rows[:, 1:5] = results.boxes_xywh
    rows[:, 5] = results.score
    rows[:, 6] = ground_truth.category_ids[results.label]
    return rows


def _coco(images: list[Any], categories: list[Any], annotations: list[Any]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco
