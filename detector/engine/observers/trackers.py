"""Curves and pictures in TensorBoard, Weights & Biases and MLflow, besides the run folder.

Each is an optional dependency, used only if `train.log` names it. A new one is a class with the three
methods of `Tracker` and an entry in `TRACKERS`; `TrackerLog` feeds them.
"""

import importlib.util
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from detector.engine.observers.base import Observer, count_batches_done
from detector.engine.observers.throughput import Throughput
from detector.engine.progress import EpochReport
from detector.engine.trainer import Trainer
from detector.errors import UserError, raise_lost_worker
from detector.structures import Batch

# The project in W&B and the experiment in MLflow, unless their own environment variables name another.
PROJECT = "detector"
# Set only where the user has not: no network, no console output, no telemetry.
DEFAULT_ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": PROJECT,
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_EXPERIMENT_NAME": PROJECT,
}


class Tracker(Protocol):
    """A destination of numbers and pictures; steps are batches trained on, and never decrease."""

    def log_scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs finite numbers by name; the part of a name before "/" is its group."""
        ...

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs a picture, uint8 [H, W, 3], RGB."""
        ...

    def finish(self) -> None:
        """Closes the tracker; nothing is logged after it."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        """`first`: points from this step on are dropped, since a resumed run logs them again."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first or None)
        if not first:
            self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```", 0)

    def log_scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers at once, so that none from before a checkpoint is lost in a kill."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes the picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def finish(self) -> None:
        """Closes the event file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, offline in `wandb/` of the run folder unless WANDB_MODE says otherwise.

    A resumed run keeps its id. The server, or `wandb sync --append` of the folders in order, joins the
    parts and skips steps that it already has.
    """

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        self._run = wandb.init(
            id=_read_or_create(folder / ".wandb_id", lambda: uuid.uuid4().hex[:8]),
            name=folder.name,
            dir=str(folder),
            config=config,
            resume="allow",
        )

    def log_scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs the numbers of a step together."""
        self._run.log(values, step=step)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs the picture."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in `mlflow.db` and `mlflow/` beside the run folder or at MLFLOW_TRACKING_URI.

    To view it: `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`. A resumed run continues the
        MLflow run; points that it already has are not logged again.
    """

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        runs, given = folder.parent.resolve(), os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(given or f"sqlite:///{runs / 'mlflow.db'}")
        self._artifacts = None if given else (runs / "mlflow").as_uri()
        self._run = _read_or_create(
            folder / ".mlflow_id", lambda: self._create(folder.name, config)
        )
        self._logged: dict[str, int] | None = {} if first else None
        self._client.update_run(self._run, status="RUNNING")

    def _create(self, name: str, config: dict[str, Any]) -> str:
        """Creates a run, and the experiment if there is none; returns the id of the run."""
        experiment = os.environ["MLFLOW_EXPERIMENT_NAME"]
        existing = self._client.get_experiment_by_name(experiment)
        if existing is not None:
            experiment_id = existing.experiment_id
        else:
            experiment_id = self._client.create_experiment(
                experiment, artifact_location=self._artifacts
            )
        run_id = self._client.create_run(experiment_id, run_name=name).info.run_id
        self._client.log_dict(run_id, config, "config.json")
        return run_id

    def _is_new(self, name: str, step: int) -> bool:
        """Whether MLflow does not have the point yet."""
        if self._logged is None:
            return True
        if name not in self._logged:
            points = self._client.get_metric_history(self._run, name)
            self._logged[name] = max((point.step for point in points), default=-1)
        return step > self._logged[name]

    def log_scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs the numbers of a step together."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = round(time.time() * 1000)
        new = [Metric(n, v, now, step) for n, v in values.items() if self._is_new(n, step)]
        if new:
            self._client.log_batch(self._run, metrics=new)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs the picture."""
        self._client.log_image(self._run, image, key=name, step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def require_trackers(names: Sequence[str]) -> None:
    """Checks that the trackers are installed, and sets `DEFAULT_ENVIRONMENT`.

    Raises:
        UserError: one is not; names it and the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f'train.log: {name} is not installed: pip install -e ".[{name}]", or remove it from '
                f"train.log"
            )
    if names:
        for variable, value in DEFAULT_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)  # read when the package is imported


def _read_or_create(path: Path, make: Callable[[], str]) -> str:
    """Reads the text of a file; if there is none, `make` returns the text, which is written first."""
    if not path.exists():
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")


class TrackerLog(Observer):
    """Logs losses, learning rates, throughput, norms, metrics and pictures to trackers, on rank 0.

    The step is the number of batches trained on, so that a resumed run continues its curves. A tracker
    that fails is dropped with a warning: training does not depend on a server.

    Names: loss/NAME (mean over the epoch so far) and loss/total, lr/GROUP, speed/images_per_second,
    memory/peak_gb, gradient_norm/PART and weight_norm/PART (PART: backbone, neck, head; the gradient of
    a step, summed over its images, before clipping), metrics/AP ... and epoch.
    """

    def __init__(self, openers: Sequence[Callable[[int], Tracker]], *, norms_every: int) -> None:
        """
        Args:
            openers: open a tracker, given the first step that will be logged (0 in a new run).
            norms_every: batches between two logs of the norms within an epoch, which wait for the
                device; 0 is never.
        """
        self._openers, self._norms_every = openers, norms_every
        self._throughput = Throughput()
        self._trackers: list[Tracker] = []
        self._batch = 0

    def on_start(self, trainer: Trainer) -> None:
        """Opens the trackers.

        In a resumed run everything up to the checkpoint has been logged, except the end of the epoch if
        the run resumes before its evaluation.

        Raises:
            UserError: a tracker cannot be opened.
        """
        if not trainer.process_group.is_main:
            return
        done, batch = count_batches_done(trainer), trainer.progress.batch
        first = done + (batch < len(trainer.loader)) if done else 0
        self._trackers = [_open(opener, first) for opener in self._openers]

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Counts the batch."""
        self._batch = number
        self._throughput.count(len(batch) * trainer.process_group.world_size)

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Logs losses, learning rates, throughput and memory.

        After the last batch of an epoch this is called twice, for the batch and for the epoch; only the
        latter is logged.
        """
        length = len(trainer.loader)
        if not self._trackers or number + 1 == length:
            return
        position = trainer.progress.epoch * length + min(number, length - 1)
        values = {f"loss/{name}": value for name, value in losses.items()}
        values["loss/total"] = sum(losses.values())
        values |= get_learning_rates(trainer, position)
        values["memory/peak_gb"] = trainer.hardware.peak_memory() / 1e9
        rates = self._throughput.measure()
        if rates is not None:
            values["speed/images_per_second"] = rates[0]
        self._log_scalars(position + 1, values)

    def on_gradients(self, trainer: Trainer) -> None:
        """Logs the norms at an epoch's first step and every `norms_every` batches.

        Not at its last step, unless that is also the first: a run that resumes before the evaluation
        could not log them again.
        """
        begin, end = trainer.progress.batch, self._batch + 1
        if not (self._trackers and self._norms_every):
            return
        every = self._norms_every
        if begin == 0 or (begin // every < end // every and end < len(trainer.loader)):
            step = trainer.progress.epoch * len(trainer.loader) + end
            self._log_scalars(step, compute_norms(trainer.model, trainer.scaler.get_scale()))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Logs the epoch and, if it was evaluated, its metrics."""
        self._throughput.reset()
        values = {f"metrics/{name}": value for name, value in report.metrics.items()}
        self._log_scalars(count_batches_done(trainer), {**values, "epoch": report.epoch + 1})

    def log_image(self, trainer: Trainer, name: str, image: np.ndarray) -> None:
        """Logs a picture, uint8 [H, W, 3], RGB."""
        self._call_all("log_image", count_batches_done(trainer), name, image)

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """Closes the trackers."""
        self._call_all("finish")
        self._trackers = []

    def _log_scalars(self, step: int, values: dict[str, float]) -> None:
        self._call_all("log_scalars", step, {n: v for n, v in values.items() if math.isfinite(v)})

    def _call_all(self, method: str, *values: Any) -> None:
        """Calls a method of all trackers; drops those that raise."""
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:  # a third-party library may raise anything
                raise_lost_worker(error)
                self._trackers.remove(tracker)
                reason = (str(error).splitlines() or [""])[0]
                tqdm.write(f"{_name_of(tracker)} failed ({reason}); training continues without it")


def _open(opener: Callable[[int], Tracker], first: int) -> Tracker:
    try:
        return opener(first)
    except Exception as error:  # a third-party library may raise anything: no server, no login
        raise_lost_worker(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"train.log: {_name_of(opener)} failed to start: {reason}; fix that, or remove it from "
            f"train.log"
        ) from error


def _name_of(tracker: Any) -> str:
    return getattr(getattr(tracker, "func", tracker), "__name__", type(tracker).__name__)


def get_learning_rates(trainer: Trainer, position: int) -> dict[str, float]:
    """The learning rate of each parameter group at a batch, counted over all epochs from 0.

    Returns:
        "lr/NAME" -> rate; groups with a factor have it in their name: "lr/weight_x0.1".
    """
    settings = trainer.schedule.settings_at(position)
    rates: dict[str, float] = {}
    for group in trainer.optimizer.param_groups:
        name, factor = group.get("name", "all"), group.get("factor", 1.0)
        lr = settings.bias_lr if name == "bias" else settings.lr
        rates[f"lr/{name}" + (f"_x{factor:g}" if factor != 1 else "")] = lr * factor
    return rates


@torch.no_grad()
def compute_norms(model: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """L2 norms of weights and gradients of each child of a model; one host sync.

    Args:
        model: whose children are measured.
        scale: the loss scale, by which the gradients are divided.

    Returns:
        "gradient_norm/NAME" and "weight_norm/NAME" of each child that has such tensors.
    """
    norms: dict[str, Tensor] = {}
    for name, part in model.named_children():
        parameters = list(part.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        for kind, tensors in (("gradient_norm", gradients), ("weight_norm", parameters)):
            if tensors:
                norms[f"{kind}/{name}"] = nn.utils.get_total_norm(tensors).float()
    if not norms:
        return {}
    values = torch.stack(list(norms.values())).tolist()
    return {
        name: value / scale if name.startswith("gradient") else value
        for name, value in zip(norms, values, strict=True)
    }
