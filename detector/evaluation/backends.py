"""The evaluators that compute COCO's AP: pycocotools, which defines it, and hotcoco, which is fast.

Both get the same checked arrays and give the same bits; `tests/evaluation/test_backends.py` holds
them to it.
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
except ImportError:  # optional: the same numbers, in a fraction of the time
    hotcoco = None

HOTCOCO_FLOOR = (1, 3)  # earlier ones differ from pycocotools by up to 1e-14

# (label, smallest area, largest area), px^2, of COCO's parameters
AreaRange = tuple[str, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """What an evaluator says of one set of results.

    T = 10 IoU thresholds 0.50:0.05:0.95, R = 101 recalls 0:0.01:1, A = area ranges (all, small, medium,
    large), M = detections an image and class (1, 10, 100). -1 stands where there are no truths.

    Attributes:
        stats: float64 [12], COCO's numbers; empty for other area ranges.
        precision: float64 [T, R, classes, A, M], the greatest at a recall of at least r.
        scores: float64 [T, R, classes, A, M], the score at which it is reached.
        recall: float64 [T, classes, A, M].
    """

    stats: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True, slots=True)
class Backend:
    """An evaluator; `str` says which one, with its version."""

    name: str
    evaluate: Callable[[GroundTruth, Results, Sequence[AreaRange] | None], CocoResult]

    def __str__(self) -> str:
        return f"{self.name} {importlib.metadata.version(self.name)}"


def choose_backend(name: str) -> Backend:
    """The evaluator of that name; auto is hotcoco where it is installed and new enough.

    Raises:
        UserError: no such evaluator; or hotcoco is wanted and missing, or older than its floor.
    """
    if name not in ("auto", "hotcoco", "pycocotools"):
        raise UserError(f"evaluator {name!r}: expected auto, hotcoco or pycocotools")
    fast = hotcoco is not None and _version(hotcoco) >= HOTCOCO_FLOOR
    if name == "hotcoco" and not fast:
        have = "is not installed" if hotcoco is None else f"is {hotcoco.__version__}"
        raise UserError(
            f"eval.backend: hotcoco {have}; pip install 'hotcoco>=1.3,<2', or use auto or pycocotools"
        )
    if name == "pycocotools" or not fast:
        return Backend("pycocotools", evaluate_with_pycocotools)
    return Backend("hotcoco", evaluate_with_hotcoco)


def _version(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


def evaluate_with_pycocotools(
    truth: GroundTruth, results: Results, areas: Sequence[AreaRange] | None = None
) -> CocoResult:
    """By COCO's own code; some 40 s and 2 GB for COCO's 5000 images.

    Args:
        truth, results: checked.
        areas: other ranges than COCO's four.
    """
    images, categories = _entries(truth)
    annotations = coco_annotations(
        truth.image + 1,
        truth.category_ids[truth.label],
        truth.boxes_xywh,
        truth.area,
        truth.crowd,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        true = _coco(images, categories, annotations)
        found = _coco(images, categories, [])
        if len(results):  # loadRes fails on none
            found = true.loadRes(_rows(truth, results))  # pyright: ignore[reportArgumentType]
        return _judged(truth, COCOeval(true, found, "bbox"), areas)


def evaluate_with_hotcoco(
    truth: GroundTruth, results: Results, areas: Sequence[AreaRange] | None = None
) -> CocoResult:
    """By hotcoco; some 0.5 s and 0.15 GB for COCO's 5000 images.

    Args:
        truth, results: checked.
        areas: other ranges than COCO's four.
    """
    assert hotcoco is not None, "choose_backend gives this only where hotcoco is installed"
    true = hotcoco.COCO.from_arrays(
        *_entries(truth),
        truth.image + 1,
        truth.category_ids[truth.label],
        truth.boxes_xywh,
        area=truth.area,
        iscrowd=truth.crowd,
    )
    found = true.load_res(_rows(truth, results))
    with contextlib.redirect_stdout(io.StringIO()):
        return _judged(truth, hotcoco.COCOeval(true, found, "bbox"), areas)


def _judged(truth: GroundTruth, judge: Any, areas: Sequence[AreaRange] | None) -> CocoResult:
    """Runs an evaluator of either kind: they share pycocotools' interface."""
    if areas is not None:
        params = judge.params
        params.areaRngLbl = [name for name, _, _ in areas]
        params.areaRng = [[low, high] for _, low, high in areas]
        judge.params = params
    judge.evaluate()
    judge.accumulate()
    if areas is None:
        judge.summarize()
    by_label = np.argsort(np.argsort(truth.category_ids))  # evaluators sort by category id
    return CocoResult(
        stats=np.array(judge.stats if areas is None else [], np.float64),
        precision=judge.eval["precision"][:, :, by_label],
        scores=judge.eval["scores"][:, :, by_label],
        recall=judge.eval["recall"][:, by_label],
    )


def _entries(truth: GroundTruth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images, numbered from 1 in the order of their ids, which decides ties; categories."""
    images = [{"id": number} for number in range(1, len(truth.image_ids) + 1)]
    return images, [{"id": i, "name": str(i)} for i in truth.category_ids.tolist()]


def _rows(truth: GroundTruth, results: Results) -> np.ndarray:
    """[d, 7]: image, x, y, width, height, score, category."""
    rows = np.empty((len(results), 7))
    rows[:, 0] = results.image + 1
    rows[:, 1:5] = results.boxes_xywh
    rows[:, 5] = results.score
    rows[:, 6] = truth.category_ids[results.label]
    return rows


def _coco(images: list[Any], categories: list[Any], annotations: list[Any]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco
