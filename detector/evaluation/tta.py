"""Test-time augmentation: a batch is evaluated flipped and at several scales, its candidates merged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from detector.structures import Candidates

GREY = 114 / 255  # of the padding, as in the letterbox


@dataclass(frozen=True, slots=True)
class TTAView:
    """One transform of a batch, and its inverse for the boxes.

    Attributes:
        scale: of width and height.
        flip: left to right.
    """

    scale: float = 1.0
    flip: bool = False

    def apply(self, images: Tensor, stride: int) -> Tensor:
        """Transforms images [B, 3, H, W] in [0, 1]; grey pads them to a multiple of `stride`."""
        if self.scale != 1:
            height, width = (self._scale(size) for size in images.shape[2:])
            images = functional.interpolate(
                images, (height, width), mode="bilinear", antialias=self.scale < 1
            )
            images = functional.pad(images, (0, -width % stride, 0, -height % stride), value=GREY)
        return images.flip(3) if self.flip else images

    def invert(self, candidates: Candidates, images: Tensor, stride: int) -> Candidates:
        """Maps candidates of the transformed batch to the pixels of `images`."""
        boxes = candidates.boxes_xyxy
        height, width = images.shape[2:]
        scaled = [self._scale(size) for size in (width, height)]
        if self.flip:
            padded = width if self.scale == 1 else scaled[0] + -scaled[0] % stride
            boxes = torch.stack(
                [padded - boxes[:, 2], boxes[:, 1], padded - boxes[:, 0], boxes[:, 3]], 1
            )
        if self.scale != 1:
            boxes = boxes / boxes.new_tensor([scaled[0] / width, scaled[1] / height] * 2)
        return replace(candidates, boxes_xyxy=boxes)

    def _scale(self, size: int) -> int:
        return max(round(size * self.scale), 1)


NO_TTA = (TTAView(),)


def make_tta_views(scales: Sequence[float], *, flip: bool) -> tuple[TTAView, ...]:
    """A view for each scale and, with `flip`, another one flipped."""
    return tuple(
        TTAView(scale, flipped)
        for scale in scales
        for flipped in ((False, True) if flip else (False,))
    )
