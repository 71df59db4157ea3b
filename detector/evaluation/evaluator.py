"""From a model to COCO's twelve numbers, as one callable."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from tqdm import tqdm

from detector.device import Hardware
from detector.distributed import ProcessGroup
from detector.evaluation.coco_ap import CocoAP
from detector.evaluation.predict import StageTimer, predict
from detector.evaluation.tta import NO_TTA, TTAView
from detector.postprocess import Postprocess
from detector.structures import ImageDetections


class Evaluator:
    """Runs a model over the validation batches and computes COCO's numbers for its detections.

    Attributes:
        coco_ap: the ground truth, the backend, and the results of the last evaluation.
        timer: records the next evaluation, if set.
        unreadable: images that the last evaluation could not read; their ground truth counted as missed.
        preview: detections in the first images of the last evaluation.
    """

    def __init__(
        self,
        batches: Any,  # sized, iterable over Batch
        coco_ap: CocoAP,
        postprocess: Postprocess,
        *,
        hardware: Hardware,
        process_group: ProcessGroup | None = None,
        tta_views: Sequence[TTAView] = NO_TTA,
        num_preview: int = 16,
    ) -> None:
        """Takes the parts; nothing is computed yet.

        Args:
            batches: those of this rank: of n ranks, rank r has batches r, r + n, r + 2n ...
            coco_ap: ground truth and backend; used on rank 0.
            postprocess: confidence threshold and NMS.
            hardware: device, precision and memory format.
            process_group: the ranks that share the evaluation; a single one by default.
            tta_views: more than one is test-time augmentation.
            num_preview: images whose detections are kept in `preview`.
        """
        self.batches, self.coco_ap, self.postprocess = batches, coco_ap, postprocess
        self.hardware, self.tta_views = hardware, tta_views
        self.process_group = process_group or ProcessGroup()
        self.num_preview = num_preview
        self.timer: StageTimer | None = None
        self.unreadable: list[str] = []
        self.preview: list[ImageDetections] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """COCO's twelve numbers of a model on the device; the same on every rank."""
        batches = list(self._predict(model))
        group = self.process_group
        parts = group.gather_objects((batches, self.unreadable))
        self.unreadable = [line for _, lines in parts for line in lines]
        batches_of_ranks = [batches for batches, _ in parts]
        rounds = itertools.zip_longest(*batches_of_ranks, fillvalue=())
        detections = [each for batches in rounds for batch in batches for each in batch]
        return group.broadcast(self._evaluate(detections) if group.is_main else {})

    def _evaluate(self, detections: list[ImageDetections]) -> dict[str, float]:
        self.preview = detections[: self.num_preview]
        return self.coco_ap(detections)

    def _predict(self, model: nn.Module) -> Iterator[list[ImageDetections]]:
        self.unreadable = []
        return predict(
            model,
            self._iterate_batches(),
            self.postprocess,
            hardware=self.hardware,
            tta_views=self.tta_views,
            timer=self.timer,
        )

    def _iterate_batches(self) -> Iterator[Any]:
        """The batches, with a progress bar on a terminal; collects what could not be read."""
        for batch in tqdm(self.batches, desc="evaluate", unit="batch", leave=False, disable=None):
            self.unreadable += batch.unreadable
            yield batch
