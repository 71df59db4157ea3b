"""The computation that is exported: the network with BatchNorm folded, and the decoding of its maps."""

from typing import Any

import torch
from torch import Tensor, nn

from detector.decode import grid
from detector.nn import fuse_batch_norms


class InferenceModel(nn.Module):
    """Images -> the box and the class scores of every anchor of every cell.

    It decodes all cells, where `detector.decode` skips those of low objectness: a data-dependent shape
    costs more in other runtimes than the arithmetic that it saves.

    Attributes:
        network: a copy with BatchNorm folded into the convolutions.
        dtype: of the network; the decoding is in float32, since fp16 rounds pixels above 512 to halves.
    """

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        """
        Args:
            model: a detector in evaluation mode, on the CPU.
            dtype: float32 or float16.
        """
        super().__init__()
        self.network: Any = fuse_batch_norms(model).to(dtype)
        self.register_buffer("anchors", model.anchors.float())  # px; fp16 would round them
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes a batch.

        Args:
            images: float32 [B, 3, H, W] in [0, 1], RGB; H and W multiples of the largest stride.

        Returns:
            boxes_xyxy float32 [B, N, 4], pixels of `images`, and scores float32 [B, N, classes] in
            [0, 1], objectness times class probability. N counts levels, then anchors, rows, columns.
        """
        boxes, scores = [], []
        for level, maps in enumerate(self.network(images.to(self.dtype))):
            raw = maps.float()  # [B, A, H, W, 5 + classes]
            boxes.append(self._decode_boxes(level, raw).flatten(1, 3))
            scores.append((raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()).flatten(1, 3))
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def _decode_boxes(self, level: int, raw: Tensor) -> Tensor:
        """boxes_xyxy [B, A, H, W, 4], pixels."""
        boxes = self.network.decoder.decode_cells(
            level,
            raw[..., :4],
            grid(raw.shape[2], raw.shape[3], raw.device),
            self.get_buffer("anchors")[level][:, None, None],
            self.network.strides[level],
        )
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return torch.cat([centre - half, centre + half], -1)
