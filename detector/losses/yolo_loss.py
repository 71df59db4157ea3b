"""The loss: boxes and classes of the matched cells, objectness of every cell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from detector.decode import Decoder, grid
from detector.losses.assign import Matches, assign, move_matches
from detector.losses.class_losses import ClassLoss, class_bce
from detector.losses.dynamic_assign import Assigner, CandidateScores
from detector.losses.iou_losses import BoxLoss, ciou_loss, paired_iou
from detector.structures import Batch

# Weight of the objectness loss by level, finest first. Published for three levels; a network with two
# levels takes the first two.
BALANCE = (4.0, 1.0, 0.4, 0.1)


def _sum_over_one_rank(count: Tensor) -> Tensor:
    """With one rank: the count itself."""
    return count


def _sum_weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum() if weights is None else (values * weights).sum()


@dataclass(frozen=True, slots=True)
class LossTerms:
    """What `YOLOLoss` is made of, besides its weights. The defaults are the yolov4-csp recipe.

    Attributes:
        assigner: chooses among the candidates of `assign`; None keeps all.
        box: loss of a matched box.
        objectness: target of a match: "box_loss" is 1 - its box loss, at least 0 (its CIoU); "iou" its
            IoU; "one" is 1.
        classes: loss of the class logits of a match.
        label_smoothing: the class targets are 1 - half of it and half of it.
        class_weights: of the class loss of each class's matches; None: all weigh 1.
    """

    assigner: Assigner | None = None
    box: BoxLoss = ciou_loss
    objectness: Literal["box_loss", "iou", "one"] = "box_loss"
    classes: ClassLoss = class_bce
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None


class YOLOLoss(nn.Module):
    """Box, objectness and class loss of the yolov4-csp recipe, and what may take their places.

    * box: 1 - CIoU, mean over the matches of a level, summed over levels. Zheng et al., "Distance-IoU
      Loss", 2020, equation 10.
    * obj: binary cross-entropy of every (anchor, cell) with the CIoU of its match, at least 0, or 0
      without a match; mean over a level, weighted by `balance`. Cells inside a crowd region are ignored.
      With an assigner that chooses few of the candidates, times candidates / matches: objects then weigh
      as much as they do without one (the few would drown in a mean over all cells).
    * cls: binary cross-entropy of each class, mean over matches and classes, summed over levels; 0 with
      one class.

    Means over matches are weighted by `Matches.quality` if the assigner gives one, which is then the
    objectness target too.

    Differs from the published code where several matches share one (anchor, cell): the target is the
    largest of them, not the one written last, so CPU and GPU agree.

    Attributes:
        weights: gain of each term; the total is `sum(weights[name] * losses[name])`.
        counts_follow_predictions: whether the divisors of the means depend on the raw maps.
    """

    anchors: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        anchors: Tensor,
        strides: Sequence[int],
        *,
        num_classes: int,
        gains: dict[str, float],
        balance: Sequence[float],
        anchor_ratio: float,
        terms: LossTerms | None = None,
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
        self._host_anchors = anchors.detach().cpu()
        self.strides = tuple(strides)
        self.balance = tuple(balance)
        self.num_classes = num_classes
        self.anchor_ratio = anchor_ratio
        self.terms = terms or LossTerms()
        self.counts_follow_predictions = self.terms.assigner is not None
        self.decoder = decoder or Decoder()
        self.negative = 0.5 * self.terms.label_smoothing
        self.positive = 1 - 0.5 * self.terms.label_smoothing
        weights = self.terms.class_weights
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights))
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
        candidates = self._list_candidates(raw, batch)
        matches = self._choose(raw, candidates, batch)
        counts = [
            [len(m.box) if m.quality is None else float(m.quality.sum()), level[..., 0].numel()]
            for m, level in zip(matches, raw, strict=True)
        ]
        counts.append(self._count_chosen(candidates, matches))
        counts = sum_over_ranks(torch.tensor(counts, dtype=torch.float64)).tolist()
        listed, chosen = counts.pop()
        zero = raw[0].new_zeros(())
        losses = {"box": zero, "obj": zero, "cls": zero}
        for number, (level, match) in enumerate(zip(raw, matches, strict=True)):
            for name, value in self._level_losses(
                number, level, match, batch, *counts[number]
            ).items():
                losses[name] = losses[name] + value
        if chosen > 0:
            losses["obj"] = losses["obj"] * (listed / chosen)
        return losses

    def _list_candidates(self, raw: Sequence[Tensor], batch: Batch) -> list[Matches]:
        """What the boxes of each level could be matched with.

        Their number decides the shapes of everything that follows, so a GPU that lists them is waited for
        six times; the CPU does it while the GPU is still in the forward pass.
        """
        host = batch.host or batch
        shapes = [(level.shape[2], level.shape[3]) for level in raw]
        candidates = assign(
            host.boxes_xyxy,
            host.image_index,
            self.anchors if host is batch else self._host_anchors,
            self.strides,
            shapes,
            self.anchor_ratio,
            [min(self.decoder.reach(level), 0.5) for level in range(len(raw))],
        )
        return candidates if host is batch else move_matches(candidates, raw[0].device)

    def _count_chosen(self, candidates: list[Matches], matches: list[Matches]) -> list[float]:
        """How many candidates there are, and how many the assigner chose: each by its quality, but at
        least one for each box. Without an assigner that chooses, 0 and 0.
        """
        if self.terms.assigner is None:
            return [0, 0]
        boxes = len(torch.cat([m.box for m in matches]).unique())
        chosen = sum(len(m.box) if m.quality is None else float(m.quality.sum()) for m in matches)
        return [sum(len(m.box) for m in candidates), max(chosen, boxes)]

    def _choose(
        self, raw: Sequence[Tensor], candidates: list[Matches], batch: Batch
    ) -> list[Matches]:
        """The matches of each level: all candidates, or those that the assigner chooses."""
        if self.terms.assigner is None:
            return candidates
        sizes = [len(level.box) for level in candidates]
        choice = self.terms.assigner(self._score_candidates(raw, candidates, batch))
        qualities = [None] * len(raw) if choice.quality is None else choice.quality.split(sizes)
        return [
            level.select(keep, quality)
            for level, keep, quality in zip(
                candidates, choice.keep.split(sizes), qualities, strict=True
            )
        ]

    @torch.no_grad()
    def _score_candidates(
        self, raw: Sequence[Tensor], candidates: Sequence[Matches], batch: Batch
    ) -> CandidateScores:
        """What the network predicts for each candidate, the levels one after the other."""
        parts: list[tuple[Tensor, ...]] = []
        first = 0  # slot of the level's first (image, anchor, cell)
        for number, (level, match) in enumerate(zip(raw, candidates, strict=True)):
            values = level[match.image, match.anchor, match.row, match.column]  # [m, 5 + classes]
            iou = paired_iou(self._decode_boxes(number, values, match), match.boxes_cxcywh)
            confidence = values[:, 4:5].sigmoid() * values[:, 5:].sigmoid()  # [m, classes]
            positive = self._one_hot(batch.labels[match.box])
            score = (confidence * positive).sum(1)
            root = confidence.sqrt().clamp(1e-7, 1 - 1e-7)
            cost = -torch.where(positive, root, 1 - root).log().sum(1)
            parts.append((match.box, first + self._flat_index(level, match), iou, score, cost))
            first += level[..., 0].numel()
        return CandidateScores(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _one_hot(self, labels: Tensor) -> Tensor:
        """Labels [m] -> bool [m, classes]."""
        return labels[:, None] == torch.arange(self.num_classes, device=labels.device)

    @staticmethod
    def _flat_index(level: Tensor, match: Matches) -> Tensor:
        """Index of each match in the level's [B, A, H, W], flattened."""
        _, anchors, rows, columns, _ = level.shape
        return ((match.image * anchors + match.anchor) * rows + match.row) * columns + match.column

    def _level_losses(
        self, number: int, level: Tensor, match: Matches, batch: Batch, matched: float, cells: float
    ) -> dict[str, Tensor]:
        """The three terms of one level; `matched` and `cells` are the divisors of their means."""
        losses: dict[str, Tensor] = {}
        # objectness of each (anchor, cell) or 0, [B, A, H, W]; contiguous, for the flat index below
        target = level.new_zeros(level.shape[:4])
        if len(match.box) and matched > 0:
            values = level[match.image, match.anchor, match.row, match.column]  # [m, 5 + classes]
            boxes = self._decode_boxes(number, values, match)  # in cells
            box_losses = self.terms.box(boxes, match.boxes_cxcywh)
            losses["box"] = _sum_weighted(box_losses, match.quality) / matched
            quality = match.quality
            if quality is None:
                quality = self._objectness_target(boxes.detach(), box_losses.detach(), match)
            flat = self._flat_index(level, match)
            target.view(-1).scatter_reduce_(0, flat, quality, "amax")
            if self.num_classes > 1:
                labels = batch.labels[match.box]
                entropy = self._class_losses(values[:, 5:], labels, boxes.detach(), match)
                losses["cls"] = entropy / (matched * self.num_classes)

        weight = self._mask_crowds(number, target, match, batch)
        entropy = binary_cross_entropy_with_logits(level[..., 4], target, weight, reduction="sum")
        losses["obj"] = self.balance[number] * entropy / cells
        return losses

    def _decode_boxes(self, number: int, values: Tensor, match: Matches) -> Tensor:
        """Predicted boxes_cxcywh [m, 4] of matches, in cells."""
        cells = torch.stack([match.column, match.row], -1).float()
        anchors = self.anchors[number][match.anchor] / self.strides[number]
        return self.decoder.decode_cells(number, values[:, :4], cells, anchors, 1.0)

    def _objectness_target(self, boxes: Tensor, box_losses: Tensor, match: Matches) -> Tensor:
        """Target of each match, [m] in [0, 1]."""
        if self.terms.objectness == "iou":
            return paired_iou(boxes, match.boxes_cxcywh)
        if self.terms.objectness == "one":
            return torch.ones_like(box_losses)
        return (1 - box_losses).clamp(min=0)

    def _class_losses(
        self, logits: Tensor, labels: Tensor, boxes: Tensor, match: Matches
    ) -> Tensor:
        """Sum of the class losses of all matches and classes, each with the weight of its match."""
        positive = self._one_hot(labels)
        targets = torch.full_like(logits, self.negative).masked_fill_(positive, self.positive)
        iou = paired_iou(boxes, match.boxes_cxcywh)
        losses = self.terms.classes(logits, targets, positive, iou)
        weights = match.quality
        if self.class_weights is not None:
            by_class = self.class_weights.to(logits.dtype)[labels]
            weights = by_class if weights is None else by_class * weights
        return _sum_weighted(losses, None if weights is None else weights[:, None])

    def _mask_crowds(
        self, number: int, target: Tensor, match: Matches, batch: Batch
    ) -> Tensor | None:
        """Weights [B, A, H, W]: 0 for unmatched cells inside a crowd, else 1; None without crowds."""
        host = batch.host or batch  # its numbers can be read without waiting for a GPU
        if not len(host.ignore_index):
            return None
        weight = torch.ones_like(target)
        cells = grid(target.shape[2], target.shape[3], target.device)
        centre = (cells + 0.5) * self.strides[number]  # [H, W, 2]
        x, y = centre.unbind(-1)
        regions = zip(host.ignore_index.tolist(), host.ignore_xyxy.tolist(), strict=True)
        for image, (x1, y1, x2, y2) in regions:
            weight[image].masked_fill_((x > x1) & (x < x2) & (y > y1) & (y < y2), 0.0)
        # a Python number would be copied to a GPU, which waits
        weight[match.image, match.anchor, match.row, match.column] = weight.new_ones(())
        return weight
