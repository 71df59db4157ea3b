"""The loss of a classifier; `CLASSIFIER_LOSSES` by name.

All take float32 logits [B, classes] and class shares [B, classes], whose rows sum to 1, or to 0 for an
image without boxes, and return [B]; they are linear in the shares, so that MixUp mixes losses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.registry import Registry
from detector.structures import Batch

ClassifierLoss = Callable[[Tensor, Tensor], Tensor]
CLASSIFIER_LOSSES: Registry[ClassifierLoss] = Registry("classifier loss")
PRESENT, ABSENT, ABSENT_WEIGHT = 0.9, 0.1, 0.5  # m+, m-, lambda


@CLASSIFIER_LOSSES.register("cross_entropy")
def softmax_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """- sum of share x log softmax."""
    return -(shares * torch.log_softmax(logits, 1)).sum(1)


@CLASSIFIER_LOSSES.register("margin")
def margin(logits: Tensor, shares: Tensor) -> Tensor:
    """Of p = sigmoid: share x max(0, 0.9 - p)^2 + 0.5 (1 - share) max(0, p - 0.1)^2, summed.

    p is the length of a capsule. Sabour et al., "Dynamic Routing Between Capsules", 2017, equation 4.
    """
    lengths = logits.sigmoid()
    missed = functional.relu(PRESENT - lengths).square()
    found = ABSENT_WEIGHT * functional.relu(lengths - ABSENT).square()
    absent = shares.sum(1, keepdim=True) - shares
    return (shares * missed + absent * found).sum(1)


class ClassificationLoss(nn.Module):
    """A loss of the logits and the class shares of each image (`Batch.class_shares`).

    Attributes:
        weights: of its scalars in the total loss.
        counts_follow_predictions: as in `detector.engine.micro_batch.Criterion`; True, since its count is
            known per chunk, without maps of the whole batch.
    """

    counts_follow_predictions = True

    def __init__(
        self,
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        kind: ClassifierLoss = softmax_cross_entropy,
    ) -> None:
        """`label_smoothing`: eps in [0, 1); a class gets 1 - eps, the others share eps, as in darknet."""
        super().__init__()
        self.num_classes, self.label_smoothing, self.kind = num_classes, label_smoothing, kind
        self.weights = {"cls": 1.0}

    def forward(
        self, raw: Tensor, batch: Batch, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Logits [B, classes] and their batch -> {"cls": mean over the labelled images of all ranks}."""
        shares = batch.class_shares(self.num_classes)
        labelled = shares.sum(1)  # 1, or 0 for an image without boxes
        count = total(labelled.sum().round()).clamp(min=1)
        return {"cls": self.kind(raw.float(), self._smooth(shares)).sum() / count}

    def _smooth(self, shares: Tensor) -> Tensor:
        if not self.label_smoothing:
            return shares
        other = self.label_smoothing / max(self.num_classes - 1, 1)
        return shares * (1 - self.label_smoothing) + other * (shares.sum(1, keepdim=True) - shares)
