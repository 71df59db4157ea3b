"""The whole way from a model to its twelve numbers, as one callable."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from detector.evaluation.coco_ap import CocoAP
from detector.evaluation.predict import Clock, predict
from detector.evaluation.tta import AS_IT_IS, TTAView
from detector.postprocess import Postprocess
from detector.structures import ImageDetections


class Team(Protocol):
    """The processes that share an evaluation."""

    @property
    def writes(self) -> bool:
        """Whether this is the one that judges."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """What each has, by rank."""
        ...

    def first(self, value: Any) -> Any:
        """What the first has."""
        ...


class Evaluator:
    """Runs a model over validation batches and judges what it finds.

    Attributes:
        clock: takes the times of the next evaluation, where one is given.
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
        team: Team | None = None,
        views: Sequence[TTAView] = AS_IT_IS,
    ) -> None:
        """`batches` are this process's: of n processes, number r has batches r, r + n, r + 2n ...

        `views`: ways to look at each batch; more than one is test-time augmentation.
        """
        self.team = team
        self.batches, self.judge, self.postprocess = batches, judge, postprocess
        self.hardware = {
            "device": device,
            "memory_format": memory_format,
            "autocast": autocast,
        }
        self.num_shown, self.views = num_shown, views
        self.clock: Clock | None = None
        self.unreadable: list[str] = []
        self.shown: list[ImageDetections] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """COCO's twelve numbers of a model on the device; the same in every process."""
        batches = list(self._predict(model))
        if self.team is None:
            return self._judged(batches)
        parts = self.team.gather((batches, self.unreadable))
        self.unreadable = [line for _, lines in parts for line in lines]
        own = [part for part, _ in parts]
        turns = itertools.zip_longest(*own, fillvalue=())
        together = [list(batch) for turn in turns for batch in turn]
        return self.team.first(self._judged(together) if self.team.writes else {})

    def _judged(self, batches: list[list[ImageDetections]]) -> dict[str, float]:
        found = [each for batch in batches for each in batch]
        self.shown = found[: self.num_shown]
        return self.judge(found)

    def _predict(self, model: nn.Module) -> Iterator[list[ImageDetections]]:
        self.unreadable = []
        return predict(
            model,
            self._watched(),
            self.postprocess,
            **self.hardware,
            views=self.views,
            clock=self.clock,
        )

    def _watched(self) -> Iterator[Any]:
        """The batches, with a progress bar where the output is a terminal."""
        for batch in tqdm(self.batches, desc="evaluate", unit="batch", leave=False, disable=None):
            self.unreadable += batch.unreadable
            yield batch
