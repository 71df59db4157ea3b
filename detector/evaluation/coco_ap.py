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


class CocoAP:
    """Computes COCO's numbers of detections against the ground truth of one annotation file.

    As COCO defines it, all images of the file count, with detections or without, and all ground truth
    of the given categories.

    Attributes:
        ground_truth: of the annotation file.
        backend: computes the numbers.
        results: the detections evaluated last.
    """

    def __init__(
        self,
        ground_truth: Path | Mapping[str, Any] | GroundTruth,
        category_ids: Sequence[int] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        """Reads the ground truth.

        Args:
            ground_truth: COCO's json file, the content of one, or its checked arrays.
            category_ids: the category of each label; by default all of the json, by id.
            backend: auto, hotcoco or pycocotools.
        """
        if not isinstance(ground_truth, GroundTruth):
            ground_truth = GroundTruth.from_coco(ground_truth, category_ids)
        self.ground_truth = ground_truth
        self.backend = choose_backend(backend)
        self.results: Results | None = None

    def __call__(self, detections: Iterable[ImageDetections] | Results) -> dict[str, float]:
        """COCO's twelve numbers, in [0, 1]; -1 where there is no ground truth (no large objects, say).

        Raises:
            UserError: an image id or class that the annotation file does not have; a non-finite box or
                score.
        """
        if not isinstance(detections, Results):
            detections = Results.from_detections(self.ground_truth, detections)
        self.results = detections
        result = self.backend.evaluate(self.ground_truth, self.results, None)
        return dict(zip(METRICS, result.stats.tolist(), strict=True))
