"""The whole way from a model to its twelve numbers, as one callable."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from detector.evaluation.coco_ap import CocoAP
from detector.evaluation.predict import Found, predict
from detector.postprocess import Postprocess


class Evaluator:
    """Runs a model over validation batches and judges what it finds.

    Attributes:
        unreadable: images that could not be read at the last evaluation; their truths counted as
            missed.
        shown: what was found in the first images at the last evaluation.
    """

    def __init__(
        self,
        batches: Any,  # sized, iterable over Batch
        judge: CocoAP,
        postprocess: Postprocess,
        *,
        device: torch.device,
        memory_format: torch.memory_format,
        autocast: Callable[[], AbstractContextManager[Any]],
        num_shown: int = 16,
    ) -> None:
        self.batches, self.judge, self.postprocess = batches, judge, postprocess
        self.hardware = {
            "device": device,
            "memory_format": memory_format,
            "autocast": autocast,
        }
        self.num_shown = num_shown
        self.unreadable: list[str] = []
        self.shown: list[Found] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """COCO's twelve numbers of a model on the device."""
        found = [each for batch in self._predict(model) for each in batch]
        self.shown = found[: self.num_shown]
        return self.judge(found)

    def _predict(self, model: nn.Module) -> Iterator[list[Found]]:
        self.unreadable = []
        return predict(model, self._watched(), self.postprocess, **self.hardware)

    def _watched(self) -> Iterator[Any]:
        """The batches, with a progress bar where the output is a terminal."""
        for batch in tqdm(self.batches, desc="evaluate", unit="batch", leave=False, disable=None):
            self.unreadable += batch.unreadable
            yield batch
