"""The loop."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detector.engine.ema import WeightAverage
from detector.engine.hardware import Hardware
from detector.engine.processes import Processes
from detector.engine.schedule import Schedule, Settings, apply_settings
from detector.errors import UserError
from detector.structures import Batch

LOOK_EVERY = 10  # batches between two looks at the losses: each waits for the device


class Batches(Protocol):
    """What the trainer asks of a loader: the same batches for the same epoch, always."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `start` on."""
        ...


class Criterion(Protocol):
    """A loss: named scalars, each a mean over its batch, and their weights in the total."""

    weights: dict[str, float]

    def __call__(
        self, raw: Sequence[Tensor], batch: Batch, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Raw maps and their batch -> unweighted scalars; `total` adds counts up over processes."""
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

    def row(self) -> dict[str, float]:
        """As results.csv has it."""
        losses = {f"loss_{name}": value for name, value in self.losses.items()}
        return {
            "epoch": self.epoch + 1,
            **losses,
            "lr": self.lr,
            **self.metrics,
            "seconds": self.seconds,
        }


@dataclass(slots=True)
class Progress:
    """Where a run stands, after an optimiser step; with weights, average, optimiser, scaler and
    generators all that a resumed one needs.

    Attributes:
        epoch, batch: the next one; a batch after the epoch's last means that its evaluation is next.
        totals, images: weighted losses times images of the epoch so far, and those images.
        seconds: of the epoch so far, over all the runs that it took.
        unreadable: image files that could not be read, a line each.
        history: a row of values for each epoch that is done.
    """

    epoch: int = 0
    batch: int = 0
    best_ap: float = -1.0
    totals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    images: int = 0
    seconds: float = 0.0
    unreadable: set[str] = field(default_factory=set[str])
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


class Stopped(Exception):
    """A run that was asked to stop has written its checkpoint; the reason."""


class Trainer:
    """Trains a model.

    Attributes:
        model, criterion, optimizer, average, hardware, loader, schedule: the parts.
        evaluate: averaged model -> metrics, of which "AP" chooses the best.
        observers: told of everything; they change nothing.
        progress: where the run stands.
        processes: those that train together; each has this trainer, and its own part of each batch.
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
        processes: Processes | None = None,
        shared_statistics: bool = True,
    ) -> None:
        """`shared_statistics`: BatchNorm's are those of all processes; else each has its own."""
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.average, self.schedule, self.loader = average, schedule, loader
        self.evaluate, self.eval_every, self.hardware = evaluate, eval_every, hardware
        self.observers = observers
        self.processes = processes or Processes()
        self.scaler = hardware.scaler()
        self.progress = Progress()
        self._replica = self.processes.replicate(model, shared_statistics=shared_statistics)
        self._stop: str | None = None
        self._interruptible = False
        self._clock = time.perf_counter()

    def run(self) -> None:
        """All epochs from where the run stands.

        Raises:
            UserError: the loss is no longer a number, or no image can be read.
            Stopped: as `stop` asked.
        """
        for observer in self.observers:
            observer.on_start(self)
        self.announce("start")
        while self.progress.epoch < self.schedule.epochs:
            self._run_epoch()

    def announce(self, event: str, **values: Any) -> None:
        """Tells the observers what happens now: a name, and numbers and texts that belong to it."""
        progress = self.progress
        about = {"event": event, "epoch": progress.epoch + 1, "batch": progress.batch, **values}
        for observer in self.observers:
            observer.on_event(self, about)

    def stop(self, reason: str) -> None:
        """Asks for an end: after this step and its checkpoint, or at once where nothing would be lost.

        Safe in a signal handler.

        Raises:
            Stopped: in the middle of an evaluation, which a resumed run starts anew.
        """
        self._stop = reason
        if self._interruptible:
            raise Stopped(reason)

    def _run_epoch(self) -> None:
        progress = self.progress
        self._clock = time.perf_counter() - progress.seconds
        losses = self._train_epoch()
        due = (progress.epoch + 1) % self.eval_every == 0
        due = due or progress.epoch + 1 == self.schedule.epochs
        metrics = self._evaluate() if due else {}
        best = bool(metrics) and metrics["AP"] > progress.best_ap
        if best:
            progress.best_ap = metrics["AP"]
        report = EpochReport(
            progress.epoch,
            self.schedule.epochs,
            losses,
            self.schedule.at((progress.epoch + 1) * len(self.loader) - 1).lr,
            metrics,
            best,
            time.perf_counter() - self._clock,
        )
        progress.history.append(report.row())
        self.announce("epoch", **report.row())
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.totals, progress.images, progress.seconds = {}, 0, 0.0
        self._clock = time.perf_counter()
        for observer in self.observers:
            observer.on_epoch(self, report)
        self._stop_if_asked()

    def _evaluate(self) -> dict[str, float]:
        """The metrics of the averaged weights, the same in every process."""
        for observer in self.observers:
            observer.on_trained(self)
        self._stop_if_asked()
        self.announce("evaluation")
        self._interruptible = self.processes.size == 1  # the others would wait for ever
        try:
            return self.evaluate(self.average.module)
        finally:
            self._interruptible = False

    def _train_epoch(self) -> dict[str, float]:
        """The rest of the epoch's batches -> the mean of each weighted loss over all of them."""
        self.model.train()
        progress, epoch = self.progress, self.progress.epoch
        totals, images, waiting = dict(progress.totals), progress.images, 0
        first = epoch * len(self.loader)
        batches = self.loader.epoch(epoch, progress.batch)
        for number, batch in enumerate(batches, progress.batch):
            progress.unreadable.update(batch.unreadable)
            settings = self.schedule.at(first + number)
            batch, count = self._joined(batch)
            if count:
                for observer in self.observers:
                    observer.on_batch(self, epoch, number, batch)
                waiting += 1
                last = waiting >= settings.accumulate or number + 1 == len(self.loader)
                for name, value in self._backward(batch, count, last).items():
                    totals[name] = totals.get(name, 0) + value * count
                images += count
            if waiting and (waiting >= settings.accumulate or number + 1 == len(self.loader)):
                self._step(settings)
                waiting = 0
            if totals and number % LOOK_EVERY == 0:
                self._look(epoch, number, totals, images)
            if not waiting:
                progress.batch, progress.totals, progress.images = number + 1, dict(totals), images
                for observer in self.observers:
                    observer.on_step(self)
                if number + 1 < len(self.loader):
                    self._stop_if_asked()
        if not images:
            raise UserError(f"no image of epoch {epoch + 1} can be read; see the lines above")
        return self._look(epoch, len(self.loader), totals, images)

    def _joined(self, batch: Batch) -> tuple[Batch, int]:
        """The batch, and how many images it has in all processes.

        A process without one gets no images of the others' size: it takes part in what all do together.
        """
        shapes = self.processes.each(torch.tensor([len(batch), *batch.images.shape[2:]]))
        height, width = shapes[:, 1:].amax(0).tolist()
        if not len(batch):
            batch = replace(batch, images=batch.images.new_zeros(0, 3, height, width))
        return batch, int(shapes[:, 0].sum())

    def _backward(self, batch: Batch, count: int, last: bool) -> dict[str, Tensor]:
        """Adds the gradients of a batch; returns this process's part of its weighted losses, detached.

        `count`: images of the batch in all processes; `last`: before an optimiser step.
        """
        batch = batch.to(self.hardware.device, self.hardware.memory_format)
        with self._gradients_stay_here() if not last else contextlib.nullcontext():
            with self.hardware.autocast():
                raw = self._replica(batch.images.float() / 255)
            losses = self.criterion(raw, batch, self.processes.total)
            weighted = {name: self.criterion.weights[name] * v for name, v in losses.items()}
            # times images: gradients are summed over the nominal batch, as in the recipe; times
            # processes: DistributedDataParallel takes their mean
            total = torch.stack(list(weighted.values())).sum() * count * self.processes.size
            self.scaler.scale(total).backward()
        return {name: value.detach() for name, value in weighted.items()}

    def _gradients_stay_here(self) -> AbstractContextManager[Any]:
        """Adds gradients up in this process; the next backward outside sends them to the others."""
        if isinstance(self._replica, nn.parallel.DistributedDataParallel):
            return self._replica.no_sync()
        return contextlib.nullcontext()

    def _step(self, settings: Settings) -> None:
        apply_settings(self.optimizer, settings)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)

    def _stop_if_asked(self) -> None:
        if self.processes.any(self._stop is not None):
            for observer in self.observers:
                observer.on_stop(self)
            raise Stopped(next(reason for reason in self.processes.gather(self._stop) if reason))

    def _look(
        self, epoch: int, number: int, totals: dict[str, Tensor], images: int
    ) -> dict[str, float]:
        """Mean losses of the epoch so far, of all processes; waits for the device."""
        sums = self.processes.total(
            torch.stack([totals[name].double() for name in totals])
        ).tolist()
        losses = {name: value / images for name, value in zip(totals, sums, strict=True)}
        if not all(value == value and abs(value) != float("inf") for value in losses.values()):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            raise UserError(
                f"the loss is not a number any more (epoch {epoch + 1}, batch {number + 1}: {shown}); "
                f"try a lower train.lr, a longer warm-up, or train.precision=fp32"
            )
        for observer in self.observers:
            observer.on_losses(self, number, losses)
        self.announce("losses", batch=number, **losses)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: plain values and tensors; asked in every process."""
        progress = self.progress
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": self.processes.gather(generator_states()),
            "progress": {
                "epoch": progress.epoch,
                "batch": progress.batch,
                "best_ap": progress.best_ap,
                "totals": [_on_the_cpu(each) for each in self.processes.gather(progress.totals)],
                "images": progress.images,
                "seconds": time.perf_counter() - self._clock,
                "unreadable": sorted(set().union(*self.processes.gather(progress.unreadable))),
                "history": list(progress.history),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Goes on from where `state_dict` was taken.

        Returns:
            A line for each thing that makes the rest of the run differ from one that never stopped.
        """
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        rank, size = self.processes.rank, self.processes.size
        progress, totals = state["progress"], state["progress"]["totals"]
        device = self.hardware.device
        self.progress = Progress(
            progress["epoch"],
            progress["batch"],
            progress["best_ap"],
            totals={name: value.to(device) for name, value in _part(totals, rank, size).items()},
            images=progress["images"],
            seconds=progress["seconds"],
            unreadable=set(progress["unreadable"]),
            history=list(progress["history"]),
        )
        generators = state["generators"]
        restore_generators(generators[min(rank, len(generators) - 1)])
        if len(generators) == size:
            return []
        return [
            f"the run goes on with {size} processes instead of {len(generators)}: sums are rounded "
            f"otherwise, and layers that draw (DropBlock, rrelu) draw otherwise"
        ]


def _on_the_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in values.items()}


def _part(totals: list[dict[str, Tensor]], rank: int, size: int) -> dict[str, Tensor]:
    """Process `rank`'s part of sums that other processes may have had; number 0 takes the rest."""
    if len(totals) == size:
        return totals[rank]
    share = 1.0 if rank == 0 else 0.0
    names = totals[0] if totals else {}
    return {name: share * torch.stack([part[name] for part in totals]).sum(0) for name in names}


def generator_states() -> dict[str, Any]:
    """Every generator of this process that something in a model may draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # not ours, a user's
    return {
        "cpu": torch.get_rng_state(),
        "cuda": cuda,
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Draws go on from where `generator_states` was taken; a GPU that is not here is left out."""
    torch.set_rng_state(states["cpu"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    if "python" in states:
        version, words, gauss = states["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002


class TrainerObserver:
    """Base of everything that looks on; every method does nothing."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Before each training batch."""

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Now and then: mean losses of the epoch up to batch `number`."""

    def on_event(self, trainer: Trainer, about: dict[str, Any]) -> None:
        """Whatever happens, by its name in about["event"]; see `Trainer.announce`."""

    def on_step(self, trainer: Trainer) -> None:
        """After an optimiser step: a place from which a run can go on."""

    def on_trained(self, trainer: Trainer) -> None:
        """Before the evaluation of an epoch, all its batches done."""

    def on_stop(self, trainer: Trainer) -> None:
        """Before the run ends because somebody asked for it."""

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """After each epoch and its evaluation."""
