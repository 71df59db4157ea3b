"""Learning rate, momentum and accumulation, batch by batch."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one batch."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int  # batches an optimiser step


@dataclass(frozen=True, slots=True)
class Schedule:
    """Cosine decay with a linear warm-up.

    Over the warm-up the learning rate rises from 0 (that of the biases falls from `warmup_bias_lr`),
    the momentum from `warmup_momentum`, and the accumulation from 1 batch. Source: the yolov4-csp
    recipe. Differs from it in following the cosine batch by batch, not epoch by epoch.

    Attributes:
        batches: of an epoch.
        warmup_batches: length of the warm-up.
        lr_final: share of `lr` at the very end.
        accumulate: batches that make up the nominal batch.
    """

    batches: int
    epochs: int
    lr: float
    lr_final: float
    momentum: float
    warmup_batches: int
    warmup_momentum: float
    warmup_bias_lr: float
    accumulate: int

    def at(self, batch: int) -> Settings:
        """The settings of batch number `batch`, counted over all epochs from 0."""
        progress = batch / (self.batches * self.epochs)
        share = (1 + math.cos(math.pi * progress)) / 2
        lr = self.lr * (self.lr_final + (1 - self.lr_final) * share)
        warm = min(batch / self.warmup_batches, 1.0) if self.warmup_batches else 1.0
        return Settings(
            lr=warm * lr,
            bias_lr=self.warmup_bias_lr + warm * (lr - self.warmup_bias_lr),
            momentum=self.warmup_momentum + warm * (self.momentum - self.warmup_momentum),
            accumulate=max(round(1 + warm * (self.accumulate - 1)), 1),
        )


def apply_settings(optimizer: Optimizer, settings: Settings) -> None:
    """Writes the settings into the optimiser's groups; the one named "bias" has its own rate."""
    for group in optimizer.param_groups:
        group["lr"] = settings.bias_lr if group.get("name") == "bias" else settings.lr
        group["momentum"] = settings.momentum
