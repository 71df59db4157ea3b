"""The loss of a classifier."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detector.structures import Batch


class ClassificationLoss(nn.Module):
    """Softmax cross-entropy with the class shares of each image (`Batch.class_shares`).

    Attributes:
        weights: of its scalars in the total loss.
        counts_follow_predictions: as in `detector.engine.micro_batch.Criterion`; True, since its count is
            known per chunk, without maps of the whole batch.
    """

    counts_follow_predictions = True

    def __init__(self, num_classes: int, *, label_smoothing: float = 0.0) -> None:
        """`label_smoothing`: eps in [0, 1); a class gets 1 - eps, the others share eps, as in darknet."""
        super().__init__()
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.weights = {"cls": 1.0}

    def forward(
        self, raw: Tensor, batch: Batch, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Logits [B, classes] and their batch -> {"cls": mean over the labelled images of all ranks}."""
        shares = batch.class_shares(self.num_classes)
        labelled = shares.sum(1)  # 1, or 0 for an image without boxes
        count = total(labelled.sum().round()).clamp(min=1)
        log_probabilities = torch.log_softmax(raw.float(), 1)
        return {"cls": -(self._smooth(shares) * log_probabilities).sum() / count}

    def _smooth(self, shares: Tensor) -> Tensor:
        if not self.label_smoothing:
            return shares
        other = self.label_smoothing / max(self.num_classes - 1, 1)
        return shares * (1 - self.label_smoothing) + other * (shares.sum(1, keepdim=True) - shares)
