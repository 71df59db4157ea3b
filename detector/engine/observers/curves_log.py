"""Numbers while a run trains: speed, memory, and curves for the places that `train.log` names."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from detector.engine.observers.base import Observer
from detector.engine.observers.trackers import Tracker
from detector.engine.progress import EpochReport
from detector.engine.trainer import Trainer
from detector.errors import UserError
from detector.structures import Batch


class Speed:
    """Images and batches a second, from one look at it to the next."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._images = self._batches = 0

    def begin(self) -> None:
        """Forgets; the next batch starts the clock."""
        self._since, self._images, self._batches = None, 0, 0

    def batch(self, images: int) -> None:
        """A batch is about to be learned from."""
        self._since = self._since or time.perf_counter()
        self._images += images
        self._batches += 1

    def look(self) -> tuple[float, float] | None:
        """Images and batches a second since the last look; they are done. None if there were none."""
        if self._since is None or not self._batches:
            return None
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rates = self._images / seconds, self._batches / seconds
        self._since, self._images, self._batches = now, 0, 0
        return rates


def batches_seen(trainer: Trainer) -> int:
    """Batches whose optimiser step is done, over all epochs."""
    return trainer.progress.epoch * len(trainer.loader) + trainer.progress.batch


class TrackerLog(Observer):
    """Tells the sinks losses, rates, speed, norms, metrics and pictures; only in the first process.

    The axis is batches seen, so that a run that goes on continues its curves. A sink that fails is
    dropped with a line: a server that is down ends no training.

    Names: loss/NAME (mean of the epoch so far) and loss/total, lr/GROUP, speed/images_per_second,
    memory/peak_gb, gradient_norm/PART and weight_norm/PART (PART: backbone, neck, head; the gradient of
    a step, a sum over its images, before it is clipped), metrics/AP ... and epoch.
    """

    def __init__(self, openers: Sequence[Callable[[int], Tracker]], *, norms_every: int) -> None:
        """`openers`: first step that will be told -> sink; 0 for a new run. `norms_every`: batches
        of an epoch between two points of the norms, each of which waits for the device; 0 is never.
        """
        self._openers, self._norms_every, self._speed = openers, norms_every, Speed()
        self._sinks: list[Tracker] = []
        self._batch = 0

    def on_start(self, trainer: Trainer) -> None:
        """Opens the sinks. Of a run that goes on, all up to the checkpoint has been told, but for the
        end of an epoch that it is just before the evaluation of.
        """
        if not trainer.process_group.is_main:
            return
        seen, batch = batches_seen(trainer), trainer.progress.batch
        first = seen + (batch < len(trainer.loader)) if seen else 0
        self._sinks = [_opened(open_at, first) for open_at in self._openers]

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Notes the place."""
        self._batch = number
        self._speed.batch(len(batch) * trainer.process_group.world_size)

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Losses, learning rates, speed and memory; an epoch's last batch once, as its end."""
        length = len(trainer.loader)
        if not self._sinks or number + 1 == length:
            return
        position = trainer.progress.epoch * length + min(number, length - 1)
        values = {f"loss/{name}": value for name, value in losses.items()}
        values["loss/total"] = sum(losses.values())
        values |= learning_rates(trainer, position)
        values["memory/peak_gb"] = trainer.hardware.peak_memory() / 1e9
        rates = self._speed.look()
        if rates is not None:
            values["speed/images_per_second"] = rates[0]
        self._scalars(position + 1, values)

    def on_gradients(self, trainer: Trainer) -> None:
        """The norms, at an epoch's first step and now and then. Not at its last one if another told
        them: a run that goes on before the evaluation cannot tell them again.
        """
        begin, end = trainer.progress.batch, self._batch + 1
        if not (self._sinks and self._norms_every):
            return
        every = self._norms_every
        if begin == 0 or (begin // every < end // every and end < len(trainer.loader)):
            step = trainer.progress.epoch * len(trainer.loader) + end
            self._scalars(step, norms(trainer.model, trainer.scaler.get_scale()))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """The metrics, where the epoch was evaluated."""
        self._speed.begin()
        values = {f"metrics/{name}": value for name, value in report.metrics.items()}
        self._scalars(batches_seen(trainer), {**values, "epoch": report.epoch + 1})

    def show(self, trainer: Trainer, name: str, image: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3], for all sinks."""
        self._tell("image", batches_seen(trainer), name, image)

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """Closes the sinks."""
        self._tell("finish")
        self._sinks = []

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        self._tell("scalars", step, {n: v for n, v in values.items() if math.isfinite(v)})

    def _tell(self, method: str, *values: Any) -> None:
        for sink in list(self._sinks):
            try:
                getattr(sink, method)(*values)
            except Exception as error:  # of a library that is not ours; training does not need it
                self._sinks.remove(sink)
                reason = str(error).splitlines()
                tqdm.write(
                    f"{_name(sink)} failed ({(reason or [''])[0]}); the run goes on without it"
                )


def _opened(open_at: Callable[[int], Tracker], first: int) -> Tracker:
    try:
        return open_at(first)
    except (
        Exception
    ) as error:  # of a library that is not ours: a server that is not there, no login
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"train.log: {_name(open_at)} cannot be started: {reason}; mend that, or leave it out"
        ) from error


def _name(sink: Any) -> str:
    return getattr(getattr(sink, "func", sink), "__name__", type(sink).__name__)


def learning_rates(trainer: Trainer, position: int) -> dict[str, float]:
    """The rate of each group of parameters at a batch; groups of another factor have it in the name."""
    settings = trainer.schedule.settings_at(position)
    rates: dict[str, float] = {}
    for group in trainer.optimizer.param_groups:
        name, factor = group.get("name", "all"), group.get("factor", 1.0)
        lr = settings.bias_lr if name == "bias" else settings.lr
        rates[f"lr/{name}" + (f"_x{factor:g}" if factor != 1 else "")] = lr * factor
    return rates


@torch.no_grad()
def norms(model: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """L2 norms of weights and gradients of each part of a model; one wait for the device.

    `scale`: what the loss was multiplied by.
    """
    found: dict[str, Tensor] = {}
    for name, part in model.named_children():
        parameters = list(part.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        for kind, tensors in (("gradient_norm", gradients), ("weight_norm", parameters)):
            if tensors:
                found[f"{kind}/{name}"] = nn.utils.get_total_norm(tensors).float()
    if not found:
        return {}
    values = torch.stack(list(found.values())).tolist()
    return {
        name: value / scale if name.startswith("gradient") else value
        for name, value in zip(found, values, strict=True)
    }
