"""Model and batches -> detections in the pixels of the original images."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.device import Hardware, scale_images
from detector.evaluation.tta import NO_TTA, TTAView
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates, Detections, ImageDetections


@dataclass(slots=True)
class StageTimer:
    """Seconds of each stage of the inference, batch by batch.

    It waits for the GPU after each stage, which costs time; use one only to measure.

    Attributes:
        images: number of images in each batch.
        seconds: by stage: "images" (waiting for the loader, copying to the device), "network", "boxes"
            (decoding and NMS).
    """

    device: torch.device
    images: list[int] = field(default_factory=list[int])
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"images": [], "network": [], "boxes": []}
    )
    _last: float = field(default_factory=time.perf_counter)

    def record(self, stage: str) -> None:
        """Counts the time since the last call towards this stage."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[stage].append(now - self._last)
        self._last = now

    def summary(self) -> dict[str, dict[str, float]]:
        """Milliseconds per image of each stage: the median over batches and the 99th percentile."""
        count = np.array(self.images)
        spent = {stage: 1000 * np.array(s) / count for stage, s in self.seconds.items() if len(s)}
        return {
            stage: {"median": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99))}
            for stage, ms in spent.items()
        }

    def __str__(self) -> str:
        stages = [
            f"{stage} {ms['median']:.1f} ({ms['p99']:.1f})" for stage, ms in self.summary().items()
        ]
        return f"ms per image, median (99th percentile): {', '.join(stages)}"


@torch.inference_mode()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    postprocess: Postprocess,
    *,
    hardware: Hardware,
    tta_views: Sequence[TTAView] = NO_TTA,
    timer: StageTimer | None = None,
) -> Iterator[list[ImageDetections]]:
    """Yields detections, batch by batch; images that could not be read have none.

    Args:
        model: returns outputs that its `find_candidates` converts to candidates, and has `strides`:
            `YOLO`, `DarknetNet` or an `ExportedModel`; set to evaluation mode.
        batches: letterboxed, with `placements`.
        postprocess: confidence threshold and NMS.
        hardware: device, precision and memory format of the forward pass.
        tta_views: of each batch; the candidates of all views are merged before NMS.
        timer: records the time of each stage.
    """
    model.eval()
    for batch in batches:
        if not len(batch):
            continue
        images = scale_images(hardware.move(batch).images)
        if timer is not None:
            timer.images.append(len(batch))
            timer.record("images")
        raws = _run_network(model, images, hardware, tta_views)
        if timer is not None:
            timer.record("network")
        candidates = _decode_views(model, raws, images, postprocess.conf, tta_views)
        detections = postprocess.suppress(candidates, len(images))
        originals = [
            ImageDetections(image_id, _to_original(each, batch, number))
            for number, (image_id, each) in enumerate(zip(batch.image_ids, detections, strict=True))
        ]
        if timer is not None:
            timer.record("boxes")
        yield originals


def _run_network(
    model: Any, images: Tensor, hardware: Hardware, tta_views: Sequence[TTAView]
) -> list[Sequence[Tensor]]:
    """The outputs of each view: raw maps, or what an exported file returns."""
    raws = []
    for view in tta_views:
        with hardware.autocast():
            raws.append(model(view.apply(images, int(max(model.strides)))))
    return raws


def _decode_views(
    model: Any,
    raws: Sequence[Sequence[Tensor]],
    images: Tensor,
    conf: float,
    tta_views: Sequence[TTAView],
) -> Candidates:
    """The candidates of all views, in the pixels of `images`."""
    candidates = [
        view.invert(model.find_candidates(raw, conf), images, int(max(model.strides)))
        for view, raw in zip(tta_views, raws, strict=True)
    ]
    return candidates[0] if len(candidates) == 1 else Candidates.join(candidates)


def _to_original(detections: Detections, batch: Batch, number: int) -> Detections:
    boxes = batch.placements[number].to_original(detections.boxes_xyxy.cpu())
    scores, labels = detections.scores.cpu(), detections.labels.cpu()
    return replace(detections, boxes_xyxy=boxes, scores=scores, labels=labels)
