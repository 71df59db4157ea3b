"""A small trainer, its parts and its observers, for the tests of the engine."""

import copy
import itertools

import torch
from torch import nn

from detector.engine import (
    Hardware,
    ModelEMA,
    Observer,
    Schedule,
    Trainer,
    TrainerOptions,
    sgd,
)
from detector.structures import Batch

CPU = Hardware.choose("cpu", "fp32", channels_last=True)


def batch_of(images):
    """A batch without boxes, of images uint8 [B, 3, H, W]."""
    none = torch.zeros(0).long()
    return Batch(
        images, torch.zeros(0, 4), none, none, torch.zeros(0, 4), none, list(range(len(images)))
    )


class Loader:
    """Three batches per epoch, the last one smaller; an epoch always has the same batches."""

    sizes = (4, 4, 2)

    def __len__(self):
        return len(self.sizes)

    def epoch(self, number, start=0):
        return itertools.islice(self.all(number), start, None)

    def close(self):
        pass

    def all(self, number):
        g = torch.Generator().manual_seed(number)
        for size in self.sizes:
            yield batch_of(torch.randint(0, 255, (size, 3, 8, 8), dtype=torch.uint8, generator=g))


class Criterion:
    weights = {"a": 2.0, "b": 0.5}  # noqa: RUF012
    counts_follow_predictions = False

    def __call__(self, raw, batch, total):
        return {"a": raw.square().mean(), "b": (raw - 1).abs().mean()}


def make(epochs=3, loader=None, observers=(), accumulate=2, evaluate=None, **settings):
    """A trainer of a network of two convolutions; its AP is a sum of weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Mish(), nn.Conv2d(4, 1, 1))
    schedule = Schedule(
        batches=3,
        epochs=epochs,
        lr=0.05,
        lr_final=0.1,
        momentum=0.9,
        warmup_batches=0,
        warmup_momentum=0.8,
        warmup_bias_lr=0.1,
        accumulate=accumulate,
    )
    trainer = Trainer(
        model,
        Criterion(),
        sgd(model, lr=0.1, momentum=0.9, weight_decay=1e-3),
        ModelEMA(model, decay=0.9, warmup=3.0),
        schedule=schedule,
        loader=loader or Loader(),
        evaluate=evaluate or (lambda m: {"AP": float(m[0].weight.sum()), "AP50": 0.0}),
        hardware=settings.get("hardware", CPU),
        options=TrainerOptions(eval_every=2),
    )
    trainer.observers = observers
    return trainer


def bits(trainer):
    """Everything that could differ, as one list of tensors."""
    state = trainer.state_dict()
    tensors = [*state["model"].values(), *state["average"].values()]
    tensors += [s["momentum_buffer"] for s in state["optimizer"]["state"].values()]
    return tensors


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(bits(a), bits(b), strict=True))


class StopAtStep(Observer):
    """Stops the run at its n-th optimizer step and keeps the state that a checkpoint would hold."""

    def __init__(self, step):
        self.left, self.state = step, None

    def on_step(self, trainer):
        self.left -= 1
        if self.left == 0:
            trainer.stop("enough")

    def on_stop(self, trainer):
        self.state = copy.deepcopy(trainer.state_dict())
