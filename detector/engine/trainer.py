"""The loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from detector.engine.adversarial import SelfAdversary
from detector.engine.ema import WeightAverage
from detector.engine.freeze import Frozen
from detector.engine.hardware import Hardware
from detector.engine.schedule import Schedule, Settings, apply_settings
from detector.errors import UserError
from detector.structures import Batch

LOOK_EVERY = 10  # batches between two looks at the losses: each waits for the device


class Batches(Protocol):
    """What the trainer asks of a loader: the same batches for the same epoch, always."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        ...


class Criterion(Protocol):
    """A loss: named scalars, each a mean over its batch, and their weights in the total."""

    weights: dict[str, float]

    def __call__(self, raw: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Raw maps and their batch -> unweighted scalars."""
        ...


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch came to.

    Attributes:
        epoch: counted from 0; of `epochs`.
        losses: weighted means, as they enter the total.
        metrics: of the averaged weights, {"AP": ...}; empty where the epoch was not evaluated.
        best: whether AP is the best so far.
    """

    epoch: int
    epochs: int
    losses: dict[str, float]
    lr: float
    metrics: dict[str, float]
    best: bool
    seconds: float


@dataclass(slots=True)
class Progress:
    """Where a run stands; with weights, average, optimiser and scaler all that a resumed one needs."""

    epoch: int = 0  # the next one
    best_ap: float = -1.0
    stale: int = 0  # evaluations since the best
    unreadable: set[str] = field(default_factory=set[str])


class Trainer:
    """Trains a model.

    Attributes:
        model, criterion, optimizer, average, hardware, loader, schedule: the parts.
        evaluate: averaged model -> metrics, of which "AP" chooses the best.
        observers: told of everything; they change nothing.
        progress: where the run stands.
        clip_norm: greatest norm of a step's gradient, that of the nominal batch's sum; 0 is no limit.
        patience: evaluations without a better AP after which the run ends; 0 is no limit.
        frozen: what is not learned.
        adversary: changes some batches before they are learned from.
        ramps: told before each batch what share of training is done.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        *,
        schedule: Schedule,
        loader: Batches,
        evaluate: Callable[[nn.Module], dict[str, float]],
        eval_every: int,
        hardware: Hardware,
        observers: Sequence["TrainerObserver"] = (),
        clip_norm: float = 0.0,
        patience: int = 0,
        frozen: Frozen = Frozen(),  # noqa: B008  (immutable)
        adversary: SelfAdversary | None = None,
        ramps: Sequence[Callable[[float], None]] = (),
    ) -> None:
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.average, self.schedule, self.loader = average, schedule, loader
        self.evaluate, self.eval_every, self.hardware = evaluate, eval_every, hardware
        self.observers = observers
        self.clip_norm, self.patience, self.frozen = clip_norm, patience, frozen
        self.adversary, self.ramps = adversary, ramps
        self.scaler = hardware.scaler()
        self.progress = Progress()

    @property
    def out_of_patience(self) -> bool:
        """Whether AP has not risen for so long that the run ends."""
        return 0 < self.patience <= self.progress.stale

    def run(self) -> None:
        """All epochs from where the run stands, or until patience ends.

        Raises:
            UserError: the loss is no longer a number, or no image can be read.
        """
        epochs = self.schedule.epochs
        for observer in self.observers:
            observer.on_start(self)
        for epoch in range(self.progress.epoch, epochs):
            if self.out_of_patience:
                break
            start = time.perf_counter()
            losses = self._train_epoch(epoch)
            due = (epoch + 1) % self.eval_every == 0 or epoch + 1 == epochs
            metrics = self.evaluate(self.average.module) if due else {}
            best = bool(metrics) and metrics["AP"] > self.progress.best_ap
            if best:
                self.progress.best_ap = metrics["AP"]
            if metrics:
                self.progress.stale = 0 if best else self.progress.stale + 1
            self.progress.epoch = epoch + 1
            lr = self.schedule.at((epoch + 1) * len(self.loader) - 1).lr
            seconds = time.perf_counter() - start
            report = EpochReport(epoch, epochs, losses, lr, metrics, best, seconds)
            for observer in self.observers:
                observer.on_epoch(self, report)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the loader -> the mean of each weighted loss."""
        self.model.train()
        self.frozen.hold()
        totals: dict[str, Tensor] = {}
        num_images, waiting = 0, 0
        first = epoch * len(self.loader)
        for number, batch in enumerate(self.loader.epoch(epoch)):
            self.progress.unreadable.update(batch.unreadable)
            settings = self.schedule.at(first + number)
            if len(batch):
                for observer in self.observers:
                    observer.on_batch(self, epoch, number, batch)
                for ramp in self.ramps:
                    ramp(self.schedule.progress(first + number))
                for name, value in self._backward(batch, epoch, number).items():
                    totals[name] = totals.get(name, 0) + value * len(batch)
                num_images += len(batch)
                waiting += 1
            if waiting and (waiting >= settings.accumulate or number + 1 == len(self.loader)):
                self._step(settings)
                waiting = 0
            if totals and number % LOOK_EVERY == 0:
                self._look(epoch, number, totals, num_images)
        if not num_images:
            raise UserError(f"no image of epoch {epoch + 1} can be read; see the lines above")
        return self._look(epoch, len(self.loader), totals, num_images)

    def _backward(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """Adds the gradients of a batch; returns its weighted losses, detached."""
        batch = batch.to(self.hardware.device, self.hardware.memory_format)
        images = self._attack(batch.images.float() / 255, batch, epoch, number)
        with self.hardware.autocast():
            raw = self.model(images)
        losses = self.criterion(raw, batch)
        weighted = {name: self.criterion.weights[name] * value for name, value in losses.items()}
        # times images: gradients are summed over the nominal batch, as in the recipe
        total = torch.stack(list(weighted.values())).sum() * len(batch)
        self.scaler.scale(total).backward()
        return {name: value.detach() for name, value in weighted.items()}

    def _attack(self, images: Tensor, batch: Batch, epoch: int, number: int) -> Tensor:
        """The images, changed by the adversary if this batch, after the warm-up, is one of its own."""
        done = epoch * len(self.loader) + number
        warm = done >= self.schedule.warmup_batches
        if self.adversary is None or not warm or not self.adversary.chooses(epoch, number):
            return images
        return self.adversary.change(
            images,
            batch,
            progress=self.schedule.progress(done),
            weights=self.criterion.weights,
            scale=self.scaler.scale,
        )

    def _step(self, settings: Settings) -> None:
        apply_settings(self.optimizer, settings)
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)

    def _look(
        self, epoch: int, number: int, totals: dict[str, Tensor], num_images: int
    ) -> dict[str, float]:
        """Mean losses of the epoch so far; waits for the device."""
        losses = {name: float(total) / num_images for name, total in totals.items()}
        if not all(value == value and abs(value) != float("inf") for value in losses.values()):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            raise UserError(
                f"the loss is not a number any more (epoch {epoch + 1}, batch {number + 1}: {shown}); "
                f"try a lower train.lr, a longer warm-up, or train.precision=fp32"
            )
        for observer in self.observers:
            observer.on_losses(self, number, losses)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: plain values and tensors."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": generator_states(),
            "progress": {
                "epoch": self.progress.epoch,
                "best_ap": self.progress.best_ap,
                "stale": self.progress.stale,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        restore_generators(state["generators"])
        self.progress.epoch = state["progress"]["epoch"]
        self.progress.best_ap = state["progress"]["best_ap"]
        self.progress.stale = state["progress"].get("stale", 0)  # not in the first version's files


def generator_states() -> dict[str, Any]:
    """Torch's own generators, from which dropout and a random activation draw."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_generators(states: dict[str, Any]) -> None:
    """Draws go on from where `generator_states` was taken; a GPU that is not here is left out."""
    torch.set_rng_state(states["cpu"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


class TrainerObserver:
    """Base of everything that looks on; every method does nothing."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Before each training batch."""

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Now and then: mean losses of the epoch up to batch `number`."""

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """After each epoch and its evaluation."""
