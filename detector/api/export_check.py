"""Comparing an exported file with the PyTorch model that it was made from, on real images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from detector.device import scale_images
from detector.errors import UserError
from detector.export import ExportedModel
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates, Detections

BOX_CONF = 0.01  # lower-scored boxes are not compared: nobody draws them
SAME_BOX = 0.9  # IoU from which two detections of a class are the same one


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much an exported file may differ from PyTorch.

    Attributes:
        score: largest difference of a score.
        box: largest difference of a box coordinate, pixels of the network's input.
        unmatched: share of the detections that may be found by one of the two only.
        ap: largest difference of AP.
    """

    score: float
    box: float
    unmatched: float
    ap: float


# Of two overlapping boxes whose scores are equal to rounding, suppression keeps either (-n on raccoon: 2
# of 1,560 detections); fp16 makes more such ties. int8 is judged by its AP alone.
TOLERANCES = {
    "fp32": Tolerance(1e-4, 0.1, 0.005, 1e-3),
    "fp16": Tolerance(2e-2, 4.0, 0.02, 5e-3),
    "int8": Tolerance(1.0, float("inf"), 1.0, 2e-2),
}


@dataclass(slots=True)
class Difference:
    """The largest differences seen so far.

    Attributes:
        images: number of images compared.
        score, box: as in `Tolerance`.
        compared: boxes or detections of PyTorch that were compared.
        unmatched: detections of one of the two that the other lacks; 0 for a file without suppression,
            of which every box is compared.
        highest: the highest score of PyTorch.
    """

    images: int = 0
    score: float = 0.0
    box: float = 0.0
    compared: int = 0
    unmatched: int = 0
    highest: float = 0.0

    def update(self, scores: Tensor, boxes: Tensor) -> None:
        """Notes the differences of compared scores and boxes, both of any shape, with their signs."""
        for name, values in (("score", scores), ("box", boxes)):
            if values.numel():
                # a NaN is a difference without limit
                largest = float(values.abs().nan_to_num(nan=float("inf")).max())
                setattr(self, name, max(getattr(self, name), largest))

    def __str__(self) -> str:
        unmatched = f", {self.unmatched} detections without a counterpart" if self.unmatched else ""
        return (
            f"largest difference to PyTorch on {self.images} images, {self.compared} boxes: "
            f"score {self.score:.2g}, box {self.box:.2g} px{unmatched}"
        )


@torch.inference_mode()
def measure_difference(
    model: Any, exported: ExportedModel, batches: Iterable[Batch], postprocess: Postprocess
) -> Difference:
    """Runs both on the same images, one by one.

    A file without suppression is compared box by box, for all boxes of all cells; one with
    suppression by its detections.

    Args:
        model: the PyTorch model, in evaluation mode on the CPU.
        exported: the file.
        batches: letterboxed images.
        postprocess: confidence threshold and NMS, the file's own if it has suppression inside.
    """
    difference = Difference()
    for batch in batches:
        for pixels in scale_images(batch.images).split(1):
            raw, outputs = model(pixels), exported(pixels)
            size = (pixels.shape[2], pixels.shape[3])
            if exported.metadata.nms:
                wanted = model.find_candidates(raw, postprocess.conf)
                (expected,) = postprocess.suppress(wanted, 1)
                actual = exported.find_candidates(outputs, postprocess.conf)
                _compare_detections(difference, expected, actual, size, exported)
            else:
                pair = [
                    each.find_candidates(out, -1.0)
                    for each, out in ((model, raw), (exported, outputs))
                ]
                _compare_candidates(difference, pair[0], pair[1], size)
            difference.images += 1
    return difference


def _compare_candidates(
    difference: Difference, expected: Candidates, actual: Candidates, size: tuple[int, int]
) -> None:
    """Compares all pairs of box and class; both list them in the same order."""
    shown = expected.scores > BOX_CONF
    boxes = [clip_boxes_to_image(each.boxes_xyxy[shown], size) for each in (expected, actual)]
    difference.update(expected.scores - actual.scores, boxes[0] - boxes[1])
    difference.compared += int(shown.sum())
    difference.highest = max(difference.highest, float(expected.scores.max()))


def _compare_detections(
    difference: Difference,
    expected: Detections,
    actual: Candidates,
    size: tuple[int, int],
    exported: ExportedModel,
) -> None:
    """Pairs each detection with the other's best-overlapping one of its class."""
    tolerance = TOLERANCES[exported.metadata.precision].score
    difference.compared += len(expected.scores)
    if len(expected.scores):
        difference.highest = max(difference.highest, float(expected.scores.max()))
    boxes = [clip_boxes_to_image(each.boxes_xyxy, size) for each in (expected, actual)]
    same_class = expected.labels[:, None] == actual.labels[None]
    overlap = box_iou(boxes[0], boxes[1]) * same_class  # [n, m]
    for axis, one in ((1, expected), (0, actual)):
        if not len(one.scores):
            continue
        # the least certain ones may fall out at the threshold, or at the limit of their number
        least = exported.metadata.conf
        if len(one.scores) >= exported.metadata.max_detections:
            least = float(one.scores.min())
        certain = one.scores > least + tolerance
        if not overlap.numel():
            difference.unmatched += int(certain.sum())
            continue
        best, partner = overlap.max(axis)
        difference.unmatched += int((certain & (best < SAME_BOX)).sum())
        if axis == 1:
            rows = (certain & (best >= SAME_BOX)).nonzero(as_tuple=True)[0]
            scores = expected.scores[rows] - actual.scores[partner[rows]]
            difference.update(scores, boxes[0][rows] - boxes[1][partner[rows]])


def require_within(source: str, difference: Difference, tolerance: Tolerance) -> None:
    """Checks a difference.

    Raises:
        UserError: it exceeds the tolerance; names what and by how much.
    """
    limit = tolerance.unmatched * max(difference.compared, 1)
    for what, value, largest in (
        ("score", difference.score, tolerance.score),
        ("box", difference.box, tolerance.box),
        ("detections without a counterpart", difference.unmatched, limit),
    ):
        if not value <= largest:
            raise UserError(
                f"{source}: the exported file differs from PyTorch: {what} {value:.3g}, tolerance "
                f"{largest:.3g}; it was removed. fp32 differs least; --tolerance allows a larger "
                f"difference of scores"
            )


def require_same_ap(source: str, before: float, after: float, *, precision: str) -> None:
    """Checks the AP of an exported file; that of int8 may be higher.

    Raises:
        UserError: it differs by more than the tolerance.
    """
    tolerance = TOLERANCES[precision].ap
    lost = before - after if precision == "int8" else abs(before - after)
    if not lost <= tolerance:
        hint = "calibrate on more images (--calibration)" if precision == "int8" else "use fp32"
        raise UserError(
            f"{source}: AP {after:.4f} instead of PyTorch's {before:.4f}, tolerance {tolerance:g}; the "
            f"file was removed; {hint}"
        )
