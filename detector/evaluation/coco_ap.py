"""COCO's own average precision: the twelve numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.evaluation.backends import choose_backend
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.structures import ImageDetections

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

    All images of the file count, found or not, and all truths of the given categories, as COCO has it.

    Attributes:
        truth: the true boxes.
        backend: the evaluator that judges.
        results: what was judged last.
    """

    def __init__(
        self,
        truth: Path | Mapping[str, Any] | GroundTruth,
        category_ids: Sequence[int] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        """A json file, or what would be in one.

        Args:
            truth: the json, or its content.
            category_ids: the category of each label; unless said, all of the json by id.
            backend: auto, hotcoco or pycocotools.
        """
        self.truth = (
            truth if isinstance(truth, GroundTruth) else GroundTruth.from_coco(truth, category_ids)
        )
        self.backend = choose_backend(backend)
        self.results: Results | None = None

    def __call__(self, found: Iterable[ImageDetections] | Results) -> dict[str, float]:
        """The twelve numbers, in [0, 1]; -1 where there is nothing to judge (no large truths, say).

        Raises:
            UserError: an image id or class that the annotation file does not know; a box or score that
                is not finite.
        """
        self.results = (
            found if isinstance(found, Results) else Results.from_detections(self.truth, found)
        )
        judged = self.backend.evaluate(self.truth, self.results, None)
        return dict(zip(METRICS, judged.stats.tolist(), strict=True))


def table(metrics: dict[str, float]) -> str:
    """COCO's twelve numbers, a line each."""
    lines = []
    for name, about in zip(METRICS, _ABOUT, strict=True):
        value = f"{metrics[name]:.4f}" if metrics[name] >= 0 else "none"
        lines.append(f"  {name:<6} {value:>7}   {about}")
    return "\n".join(lines)
