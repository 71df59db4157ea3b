"""Learning rate, momentum and gradient accumulation of each batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from detector.errors import UserError
from detector.registry import Registry

# fraction of training done, final fraction of the learning rate -> fraction of the learning rate
LRCurve = Callable[[float, float], float]

# name -> a function from a curve's parameters, by keyword, to the curve
SCHEDULES: Registry[Callable[..., LRCurve]] = Registry("schedule")


@dataclass(frozen=True, slots=True)
class StepSettings:
    """Learning rates, momentum and gradient accumulation of an optimizer step.

    Attributes:
        lr: learning rate.
        bias_lr: learning rate of the parameter group "bias".
        momentum: of SGD, or the first beta of Adam.
        accumulate: micro-batches per step.
    """

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int


def make_lr_curve(name: str, **parameters: Any) -> LRCurve:
    """Makes a registered curve of the learning rate, without the warm-up.

    Raises:
        UserError: unknown name or parameter, or an invalid value.

    Example:
        >>> make_lr_curve("step", milestones=(0.8, 0.9))(0.85, 0.01)
        0.1
    """
    make = SCHEDULES.bind(name, parameters)
    try:
        curve = make()
        curve(0.5, 0.5)
    except (TypeError, ValueError) as error:
        raise UserError(f"schedule {name}: {parameters}: {error}") from None
    return curve


@SCHEDULES.register("cosine")
def _cosine() -> LRCurve:
    return cosine


def cosine(progress: float, final: float) -> float:
    """Half a period of a cosine from 1 to `final`; Loshchilov and Hutter, "SGDR", 2017, one cycle."""
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
        raise ValueError("power must be greater than 0")
    return lambda progress, final: final + (1 - final) * (1 - progress) ** power


@SCHEDULES.register("step")
def _step(*, milestones: tuple[float, ...] = (0.8, 0.9)) -> LRCurve:
    """Multiplies the rate by the same factor at each milestone, down to the final fraction.

    Milestones are fractions of training. With `train.lr_final` 0.01 the defaults are the steps of
    darknet's yolov4.cfg.
    """
    if not milestones or not all(0 < each < 1 for each in milestones):
        raise ValueError("milestones must be fractions of training, between 0 and 1")

    def step(progress: float, final: float) -> float:
        passed = sum(progress >= each for each in milestones)
        return final ** (passed / len(milestones))

    return step


@SCHEDULES.register("one_cycle")
def _one_cycle(*, peak: float = 0.3, start: float = 0.04) -> LRCurve:
    """Rises from `start` to 1 at `peak` by half a cosine, then falls to the final fraction by another.

    Smith and Topin, "Super-Convergence", 2018; the defaults are those of torch's OneCycleLR. The
    momentum does not change. The warm-up applies as well, unless it is switched off.
    """
    if not 0 < peak < 1 or not 0 <= start <= 1:
        raise ValueError("peak must be in (0, 1) and start in [0, 1]")

    def one_cycle(progress: float, final: float) -> float:
        if progress < peak:
            return cosine(1 - progress / peak, start)
        return cosine((progress - peak) / (1 - peak), final)

    return one_cycle


@dataclass(frozen=True, slots=True)
class Schedule:
    """A curve of the learning rate with a linear warm-up.

    Over the warm-up the learning rate rises from 0 (that of the biases falls from `warmup_bias_lr`),
    the momentum from `warmup_momentum`, and the accumulation from 1 batch. Source: the yolov4-csp
    recipe. Differs from it in following the curve per batch, not per epoch.

    Attributes:
        batches: per epoch.
        epochs: of the run.
        lr: learning rate where the curve is 1.
        lr_final: fraction of `lr` at the end of training.
        momentum: after the warm-up.
        warmup_batches: length of the warm-up.
        warmup_momentum: momentum at its start.
        warmup_bias_lr: learning rate of the biases at its start.
        accumulate: micro-batches per optimizer step after the warm-up.
        curve: of the learning rate; also multiplies it during the warm-up.
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
        """Fraction of training done before a batch, counted over all epochs from 0."""
        return batch / (self.batches * self.epochs)

    def settings_at(self, batch: int) -> StepSettings:
        """The settings of a batch, counted over all epochs from 0."""
        lr = self.lr * self.curve(self.progress(batch), self.lr_final)
        warm = min(batch / self.warmup_batches, 1.0) if self.warmup_batches else 1.0
        return StepSettings(
            lr=warm * lr,
            bias_lr=self.warmup_bias_lr + warm * (lr - self.warmup_bias_lr),
            momentum=self.warmup_momentum + warm * (self.momentum - self.warmup_momentum),
            accumulate=max(round(1 + warm * (self.accumulate - 1)), 1),
        )


def apply_settings(optimizer: Optimizer, settings: StepSettings) -> None:
    """Writes the settings into the parameter groups of an optimizer.

    The group "bias" has its own learning rate; a group's "factor" multiplies its rate; the momentum of
    Adam is its first beta.
    """
    for group in optimizer.param_groups:
        lr = settings.bias_lr if group.get("name") == "bias" else settings.lr
        group["lr"] = lr * group.get("factor", 1.0)
        if "betas" in group:
            group["betas"] = (settings.momentum, *group["betas"][1:])
        else:
            group["momentum"] = settings.momentum
