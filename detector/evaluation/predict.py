"""Model and batches -> detections in the pixels of the original images."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from detector.decode import decode
from detector.postprocess import Postprocess
from detector.structures import Batch, Detections


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one image: `detections` on the CPU, in pixels of the original."""

    image_id: int
    detections: Detections


@torch.inference_mode()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    postprocess: Postprocess,
    *,
    device: torch.device,
    memory_format: torch.memory_format,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Iterator[list[Found]]:
    """Detections, batch by batch; images that could not be read are missing from them.

    Args:
        model: has `anchors`, `strides` and `decoder` and returns raw maps; set to evaluation mode.
        batches: letterboxed, with `placements`.
        postprocess: thresholds and suppression.
        device, memory_format, autocast: how to run the forward pass.
    """
    model.eval()
    for batch in batches:
        if not len(batch):
            continue
        moved = batch.to(device, memory_format)
        with autocast():
            raw = model(moved.images.float() / 255)
        found = postprocess(*decode(raw, model.anchors, model.strides, model.decoder))  # pyright: ignore
        yield [
            Found(image_id, _to_original(detections, batch, number))
            for number, (image_id, detections) in enumerate(
                zip(batch.image_ids, found, strict=True)
            )
        ]


def _to_original(detections: Detections, batch: Batch, number: int) -> Detections:
    boxes = batch.placements[number].to_original(detections.boxes_xyxy.cpu())
    scores, labels = detections.scores.cpu(), detections.labels.cpu()
    return replace(detections, boxes_xyxy=boxes, scores=scores, labels=labels)
