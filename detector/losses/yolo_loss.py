"""The loss: boxes and classes of the matched cells, objectness of every cell."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from detector.decode import Decoder, grid
from detector.losses.assign import Matches, assign
from detector.losses.iou_losses import BoxLoss, ciou_loss
from detector.structures import Batch

# Weight of the objectness loss by level, finest first. Published for three levels; a network with two
# levels takes the first two.
BALANCE = (4.0, 1.0, 0.4, 0.1)


def _sum_over_one_rank(count: Tensor) -> Tensor:
    """The sum over the only rank: the count itself."""
    return count


class YOLOLoss(nn.Module):
    """Box, objectness and class loss of the yolov4-csp recipe.

    * box: `box_loss`, mean over the matches of a level, summed over levels. The recipe's is 1 - CIoU,
      Zheng et al., "Distance-IoU Loss", 2020, equation 10.
    * obj: binary cross-entropy of every (anchor, cell) with 1 - `box_loss` of its match (its CIoU),
      at least 0, or 0 without a match; mean over a level, weighted by `balance`. Cells inside a crowd
      region are ignored.
    * cls: binary cross-entropy of each class, mean over matches and classes, summed over levels; 0 with
      one class.

    Differs from the published code where several matches share one (anchor, cell): the target is the
    largest of them, not the one written last, so CPU and GPU agree.

    Attributes:
        weights: gain of each term; the total is `sum(weights[name] * losses[name])`.
    """

    anchors: Tensor

    def __init__(
        self,
        anchors: Tensor,
        strides: Sequence[int],
        *,
        num_classes: int,
        gains: dict[str, float],
        balance: Sequence[float],
        anchor_ratio: float,
        label_smoothing: float = 0.0,
        box_loss: BoxLoss = ciou_loss,
        decoder: Decoder | None = None,
    ) -> None:
        """`gains["cls"]` is for 80 classes; the weight is scaled by num_classes / 80.

        `decoder` is the model's: it decodes the boxes that are compared with ground truth, and its reach
        limits which cells are matched.
        """
        super().__init__()
        assert len(anchors) == len(strides) == len(balance), (
            "anchors, strides and balance need one entry per level"
        )
        self.register_buffer("anchors", anchors.clone())
        self.strides = tuple(strides)
        self.balance = tuple(balance)
        self.num_classes = num_classes
        self.anchor_ratio = anchor_ratio
        self.box_loss = box_loss
        self.decoder = decoder or Decoder()
        self.negative = 0.5 * label_smoothing
        self.positive = 1 - 0.5 * label_smoothing
        self.weights = {**gains, "cls": gains["cls"] * num_classes / 80}

    def forward(
        self,
        raw: Sequence[Tensor],
        batch: Batch,
        sum_over_ranks: Callable[[Tensor], Tensor] = _sum_over_one_rank,
    ) -> dict[str, Tensor]:
        """Raw maps, by level [B, A, H, W, 5 + classes], and their batch -> unweighted scalars.

        `sum_over_ranks` sums counts over the ranks of a run. Means are then taken over the matches and
        cells of all ranks: the losses of the ranks add up to the loss of the joined batch on one rank.

        Returns:
            {"box", "obj", "cls"}, float32 scalars (of float64 maps float64), each a mean, independent of
            the batch size.
        """
        raw = [level if level.dtype == torch.float64 else level.float() for level in raw]
        shapes = [(level.shape[2], level.shape[3]) for level in raw]
        matches = assign(
            batch.boxes_xyxy,
            batch.image_index,
            self.anchors,
            self.strides,
            shapes,
            self.anchor_ratio,
            [min(self.decoder.reach(level), 0.5) for level in range(len(raw))],
        )
        counts = [
            [len(match.box), level[..., 0].numel()]
            for match, level in zip(matches, raw, strict=True)
        ]
        counts = sum_over_ranks(torch.tensor(counts, dtype=torch.float64)).tolist()  # [levels, 2]
        zero = raw[0].new_zeros(())
        losses = {"box": zero, "obj": zero, "cls": zero}
        for number, (level, match) in enumerate(zip(raw, matches, strict=True)):
            for name, value in self._level_losses(
                number, level, match, batch, *counts[number]
            ).items():
                losses[name] = losses[name] + value
        return losses

    def _level_losses(
        self, number: int, level: Tensor, match: Matches, batch: Batch, matched: float, cells: float
    ) -> dict[str, Tensor]:
        """The three terms of one level; `matched` and `cells` are the divisors of their means."""
        losses: dict[str, Tensor] = {}
        # objectness of each (anchor, cell) or 0, [B, A, H, W]; contiguous, for the flat index below
        target = level.new_zeros(level.shape[:4])
        if len(match.box):
            where = (match.image, match.anchor, match.row, match.column)
            values = level[where]  # [m, 5 + classes]
            box_losses = self._box_losses(number, values, match)
            losses["box"] = box_losses.sum() / matched
            flat = ((where[0] * level.shape[1] + where[1]) * level.shape[2] + where[2]) * (
                level.shape[3]
            ) + where[3]
            quality = (1 - box_losses.detach()).clamp(min=0)
            target.view(-1).scatter_reduce_(0, flat, quality, "amax")
            if self.num_classes > 1:
                wanted = torch.full_like(values[:, 5:], self.negative)
                labels = batch.labels[match.box]
                wanted[torch.arange(len(labels), device=wanted.device), labels] = self.positive
                entropy = binary_cross_entropy_with_logits(values[:, 5:], wanted, reduction="sum")
                losses["cls"] = entropy / (matched * self.num_classes)

        weight = self._mask_crowds(number, target, match, batch)
        entropy = binary_cross_entropy_with_logits(level[..., 4], target, weight, reduction="sum")
        losses["obj"] = self.balance[number] * entropy / cells
        return losses

    def _box_losses(self, number: int, values: Tensor, match: Matches) -> Tensor:
        """The box loss of each match, float32 [m], >= 0."""
        cells = torch.stack([match.column, match.row], -1).float()
        anchors = self.anchors[number][match.anchor] / self.strides[number]
        predicted = self.decoder.decode_cells(number, values[:, :4], cells, anchors, 1.0)
        return self.box_loss(predicted, match.boxes_cxcywh)

    def _mask_crowds(
        self, number: int, target: Tensor, match: Matches, batch: Batch
    ) -> Tensor | None:
        """Weights [B, A, H, W]: 0 for unmatched cells inside a crowd, else 1; None without crowds."""
        if not len(batch.ignore_index):
            return None
        weight = torch.ones_like(target)
        cells = grid(target.shape[2], target.shape[3], target.device)
        centre = (cells + 0.5) * self.strides[number]  # [H, W, 2]
        for image, (x1, y1, x2, y2) in zip(batch.ignore_index, batch.ignore_xyxy, strict=True):
            x, y = centre.unbind(-1)
            weight[image].masked_fill_((x > x1) & (x < x2) & (y > y1) & (y < y2), 0.0)
        weight[match.image, match.anchor, match.row, match.column] = 1.0
        return weight
