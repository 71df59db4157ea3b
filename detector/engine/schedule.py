"""Learning rate, momentum and accumulation, batch by batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from detector.errors import UserError
from detector.registry import Registry

# share of training that is done, share of the rate to end at -> share of the rate; both in [0, 1]
LRCurve = Callable[[float, float], float]

# name -> a function from the curve's parameters, by keyword, to the curve
SCHEDULES: Registry[Callable[..., LRCurve]] = Registry("schedule")


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What holds for one batch."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int  # batches an optimiser step


def make_lr_curve(name: str, **parameters: Any) -> LRCurve:
    """A registered curve of the learning rate, linear warm-up aside.

    Raises:
        UserError: unknown name or parameter, or an impossible value.

    Example:
        >>> make_lr_curve("step", milestones=(0.8, 0.9))(0.85, 0.01)
        0.1
    """
    make = SCHEDULES.bind(name, parameters)
    try:
        made = make()
        made(0.5, 0.5)
    except (TypeError, ValueError) as error:
        raise UserError(f"schedule {name}: {parameters}: {error}") from None
    return made


@SCHEDULES.register("cosine")
def _cosine() -> LRCurve:
    return cosine


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 to `final`; Loshchilov and Hutter, "SGDR", 2017, one cycle."""
    return final + (1 - final) * ((1 + math.cos(math.pi * progress)) / 2)


@SCHEDULES.register("linear")
def _linear() -> LRCurve:
    return lambda progress, final: final + (1 - final) * (1 - progress)


@SCHEDULES.register("constant")
def _constant() -> LRCurve:
    return lambda progress, final: 1.0


@SCHEDULES.register("polynomial")
def _polynomial(*, power: float = 2.0) -> LRCurve:
    if power <= 0:
        raise ValueError("power has to be greater than 0")
    return lambda progress, final: final + (1 - final) * (1 - progress) ** power


@SCHEDULES.register("step")
def _step(*, milestones: tuple[float, ...] = (0.8, 0.9)) -> LRCurve:
    """Falls in equal ratios at the milestones, shares of training, the last time to the final share.

    With `train.lr_final` 0.01 these are the steps of darknet's yolov4.cfg.
    """
    if not milestones or not all(0 < each < 1 for each in milestones):
        raise ValueError("milestones are shares of training, between 0 and 1")

    def step(progress: float, final: float) -> float:
        passed = sum(progress >= each for each in milestones)
        return final ** (passed / len(milestones))

    return step


@SCHEDULES.register("one_cycle")
def _one_cycle(*, peak: float = 0.3, start: float = 0.04) -> LRCurve:
    """Up from `start` by half a cosine to 1 at `peak`, then down to the final share by another.

    Smith and Topin, "Super-Convergence", 2018; the values are those of torch's OneCycleLR. The momentum
    stays as it is. The warm-up comes on top, unless it is switched off.
    """
    if not 0 < peak < 1 or not 0 <= start <= 1:
        raise ValueError("peak lies between 0 and 1, start from 0 to 1")

    def one_cycle(progress: float, final: float) -> float:
        if progress < peak:
            return cosine(1 - progress / peak, start)
        return cosine((progress - peak) / (1 - peak), final)

    return one_cycle


@dataclass(frozen=True, slots=True)
class Schedule:
    """A curve, cosine unless said, with a linear warm-up.

    Over the warm-up the learning rate rises from 0 (that of the biases falls from `warmup_bias_lr`),
    the momentum from `warmup_momentum`, and the accumulation from 1 batch. Source: the yolov4-csp
    recipe. Differs from it in following the curve batch by batch, not epoch by epoch.

    Attributes:
        batches: of an epoch.
        warmup_batches: length of the warm-up.
        lr_final: share of `lr` at the very end.
        accumulate: batches that make up the nominal batch.
        curve: of the learning rate, after or under the warm-up.
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
    curve: LRCurve = cosine

    def progress(self, batch: int) -> float:
        """Share of training that is done before batch number `batch`, counted over all epochs from 0."""
        return batch / (self.batches * self.epochs)

    def settings_at(self, batch: int) -> StepSettings:
        """The settings of batch number `batch`, counted over all epochs from 0."""
        lr = self.lr * self.curve(self.progress(batch), self.lr_final)
        warm = min(batch / self.warmup_batches, 1.0) if self.warmup_batches else 1.0
        return StepSettings(
            lr=warm * lr,
            bias_lr=self.warmup_bias_lr + warm * (lr - self.warmup_bias_lr),
            momentum=self.warmup_momentum + warm * (self.momentum - self.warmup_momentum),
            accumulate=max(round(1 + warm * (self.accumulate - 1)), 1),
        )


def apply_settings(optimizer: Optimizer, settings: StepSettings) -> None:
    """Writes the settings into the optimiser's groups.

    Those named "bias" have their own rate; a "factor" multiplies a group's; Adam's momentum is its
    first beta.
    """
    for group in optimizer.param_groups:
        lr = settings.bias_lr if group.get("name") == "bias" else settings.lr
        group["lr"] = lr * group.get("factor", 1.0)
        if "betas" in group:
            group["betas"] = (settings.momentum, *group["betas"][1:])
        else:
            group["momentum"] = settings.momentum
