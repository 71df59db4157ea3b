"""COCO's own average precision, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.errors import UserError
from detector.evaluation.predict import Found

# In pycocotools' order. AP: mean over IoU 0.50:0.95; s, m, l: areas below 32^2, below 96^2, above.
METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
_ABOUT = (
    "IoU 0.50:0.95",
    "IoU 0.50",
    "IoU 0.75",
    "IoU 0.50:0.95, area < 32^2",
    "IoU 0.50:0.95, area 32^2 .. 96^2",
    "IoU 0.50:0.95, area > 96^2",
    "recall, 1 box an image",
    "recall, 10 boxes an image",
    "recall, 100 boxes an image",
    "recall, area < 32^2",
    "recall, area 32^2 .. 96^2",
    "recall, area > 96^2",
)


class CocoAP:
    """The ground truth of one annotation file, ready to judge detections.

    All images of the file count, found or not, and all truths of the given categories, as COCO has
    it. Annotations are numbered anew from 1: pycocotools takes a match with number 0 for none.
    """

    def __init__(self, truth: Path | Mapping[str, Any], category_ids: Sequence[int]) -> None:
        """A json file, or what would be in one; `category_ids`: its category of each label."""
        self.category_ids = np.asarray(category_ids, np.int64)
        judged = set(self.category_ids.tolist())
        tree = json.loads(truth.read_bytes()) if isinstance(truth, Path) else truth
        entries = [entry for entry in tree["annotations"] if entry["category_id"] in judged]
        categories = [entry for entry in tree["categories"] if entry["id"] in judged]
        truths = [
            {
                **entry,
                "id": number,
                "iscrowd": int(entry.get("iscrowd") or 0),
                "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
            }
            for number, entry in enumerate(entries, 1)
        ]
        self._coco = _coco(list(tree["images"]), categories, truths)
        self._image_ids = {entry["id"] for entry in tree["images"]}

    def __call__(self, found: Iterable[Found]) -> dict[str, float]:
        """The twelve numbers, in [0, 1]; -1 where there is nothing to judge (no large truths, say).

        Raises:
            UserError: an image id that the annotation file does not know.
        """
        rows = [np.zeros((0, 7))]
        for each in found:
            if each.image_id not in self._image_ids:
                raise UserError(f"image id {each.image_id} is not in the annotation file")
            d = each.detections
            x1, y1, x2, y2 = d.boxes_xyxy.double().numpy().T
            image_id = np.full(len(x1), each.image_id)
            category = self.category_ids[d.labels.numpy()]
            rows.append(
                np.stack([image_id, x1, y1, x2 - x1, y2 - y1, d.scores.numpy(), category], 1)
            )
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
            judge = COCOeval(self._coco, self._results(np.concatenate(rows)), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return dict(zip(METRICS, map(float, judge.stats), strict=True))

    def _results(self, rows: np.ndarray) -> COCO:
        if len(rows):
            return self._coco.loadRes(rows)  # pyright: ignore[reportArgumentType]  # as documented
        truth = self._coco.dataset  # loadRes fails on an empty list
        return _coco(truth["images"], truth["categories"], [])


def _coco(images: list[Any], categories: list[Any], annotations: list[Any]) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
    return coco


def table(metrics: dict[str, float]) -> str:
    """COCO's twelve numbers, a line each."""
    lines = []
    for name, about in zip(METRICS, _ABOUT, strict=True):
        value = f"{metrics[name]:.4f}" if metrics[name] >= 0 else "none"
        lines.append(f"  {name:<6} {value:>7}   {about}")
    return "\n".join(lines)
