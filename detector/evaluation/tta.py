"""Test-time augmentation: a batch seen mirrored and in other sizes, and the boxes brought back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from detector.structures import Candidates

GREY = 114 / 255  # what stands beside an image, as in the letterbox


@dataclass(frozen=True, slots=True)
class TTAView:
    """One way to look at a batch.

    Attributes:
        scale: of both sides.
        flip: mirrored, left to right.
    """

    scale: float = 1.0
    flip: bool = False

    def look(self, images: Tensor, stride: int) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] as seen; grey fills up to a multiple of `stride`."""
        if self.scale != 1:
            height, width = (max(round(side * self.scale), 1) for side in images.shape[2:])
            images = functional.interpolate(
                images, (height, width), mode="bilinear", antialias=self.scale < 1
            )
            images = functional.pad(images, (0, -width % stride, 0, -height % stride), value=GREY)
        return images.flip(3) if self.flip else images

    def back(self, found: Candidates, images: Tensor, stride: int) -> Candidates:
        """Candidates of the view, in the pixels of `images`."""
        boxes = found.boxes_xyxy
        height, width = images.shape[2:]
        seen = [max(round(side * self.scale), 1) for side in (width, height)]
        if self.flip:
            whole = width if self.scale == 1 else seen[0] + -seen[0] % stride
            boxes = torch.stack(
                [whole - boxes[:, 2], boxes[:, 1], whole - boxes[:, 0], boxes[:, 3]], 1
            )
        if self.scale != 1:
            boxes = boxes / boxes.new_tensor([seen[0] / width, seen[1] / height] * 2)
        return replace(found, boxes_xyxy=boxes)


AS_IT_IS = (TTAView(),)


def make_tta_views(scales: Sequence[float], *, flip: bool) -> tuple[TTAView, ...]:
    """Every scale, and where wanted its mirror image."""
    return tuple(
        TTAView(scale, mirrored)
        for scale in scales
        for mirrored in ((False, True) if flip else (False,))
    )
