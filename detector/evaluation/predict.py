"""Model and batches -> detections in the pixels of the original images."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.decode import candidates
from detector.evaluation.tta import AS_IT_IS, TTAView
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates, Detections, ImageDetections


@dataclass(slots=True)
class Clock:
    """Seconds that each batch spent; a GPU is waited for, so give one only to measure.

    Attributes:
        images: how many the batch had.
        steps: seconds by step: waiting for images and moving them, the network, decoding with
            suppression.
    """

    device: torch.device
    images: list[int] = field(default_factory=list[int])
    steps: dict[str, list[float]] = field(
        default_factory=lambda: {"images": [], "network": [], "boxes": []}
    )
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, step: str) -> None:
        """What has run since the last lap was this."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.steps[step].append(now - self._last)
        self._last = now

    def summary(self) -> dict[str, dict[str, float]]:
        """Milliseconds an image of each step: the median over batches, and the 99th percentile."""
        count = np.array(self.images)
        spent = {step: 1000 * np.array(s) / count for step, s in self.steps.items() if len(s)}
        return {
            step: {"median": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99))}
            for step, ms in spent.items()
        }

    def __str__(self) -> str:
        parts = [
            f"{step} {ms['median']:.1f} ({ms['p99']:.1f})" for step, ms in self.summary().items()
        ]
        return f"ms an image, median (p99): {', '.join(parts)}"


@torch.inference_mode()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    postprocess: Postprocess,
    *,
    device: torch.device,
    memory_format: torch.memory_format,
    autocast: Callable[[], AbstractContextManager[Any]],
    views: Sequence[TTAView] = AS_IT_IS,
    clock: Clock | None = None,
) -> Iterator[list[ImageDetections]]:
    """Detections, batch by batch; images that could not be read are missing from them.

    Args:
        model: has `anchors`, `strides` and `decoder` and returns raw maps; set to evaluation mode.
        batches: letterboxed, with `placements`.
        postprocess: thresholds and suppression.
        device, memory_format, autocast: how to run the forward pass.
        views: of each batch; what is found in all of them is joined before suppression.
        clock: takes the times.
    """
    model.eval()
    for batch in batches:
        if not len(batch):
            continue
        moved = batch.to(device, memory_format)
        images = moved.images.float() / 255
        if clock is not None:
            clock.images.append(len(batch))
            clock.lap("images")
        found = _found(model, images, postprocess, autocast, views, clock)
        originals = [
            ImageDetections(image_id, _to_original(detections, batch, number))
            for number, (image_id, detections) in enumerate(
                zip(batch.image_ids, found, strict=True)
            )
        ]
        if clock is not None:
            clock.lap("boxes")
        yield originals


def _found(
    model: Any,
    images: Tensor,
    postprocess: Postprocess,
    autocast: Callable[[], AbstractContextManager[Any]],
    views: Sequence[TTAView],
    clock: Clock | None,
) -> list[Detections]:
    stride = int(max(model.strides))
    raws = []
    for view in views:
        with autocast():
            raws.append(model(view.look(images, stride)))
    if clock is not None:
        clock.lap("network")
    seen = []
    for view, raw in zip(views, raws, strict=True):
        one = candidates(raw, model.anchors, model.strides, model.decoder, conf=postprocess.conf)
        seen.append(view.back(one, images, stride))
    joined = seen[0] if len(seen) == 1 else Candidates.join(seen)
    return postprocess.suppress(joined, len(images))


def _to_original(detections: Detections, batch: Batch, number: int) -> Detections:
    boxes = batch.placements[number].to_original(detections.boxes_xyxy.cpu())
    scores, labels = detections.scores.cpu(), detections.labels.cpu()
    return replace(detections, boxes_xyxy=boxes, scores=scores, labels=labels)
