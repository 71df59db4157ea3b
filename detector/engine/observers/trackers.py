"""Where curves and pictures go besides the run folder: TensorBoard, Weights & Biases, MLflow.

Each is an optional install, used only where `train.log` names it. A new one is a class with the three
methods of `Tracker` and an entry in `TRACKERS`.
"""

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detector.errors import UserError

PROJECT = "detector"  # the name of the W&B project and MLflow experiment unless theirs say another
# Their own variables win. Off unless asked for: what they would send about themselves.
QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": PROJECT,
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_EXPERIMENT_NAME": PROJECT,
}


class Tracker(Protocol):
    """Takes numbers and pictures of a run; steps are batches seen, and never go back."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Finite numbers by name; a "/" in a name groups."""
        ...

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3], RGB."""
        ...

    def finish(self) -> None:
        """The end of this process's part of the run; nothing comes after it."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        """Of a run that goes on, TensorBoard forgets points from step `first` on, which come again."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first or None)
        if not first:
            self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```", 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes them at once, so that a kill loses none that a checkpoint is behind."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes a picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def finish(self) -> None:
        """Closes the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, offline in `wandb/` of the run folder unless WANDB_MODE says otherwise.

    A run that goes on has the same id. The server, or `wandb sync --append` of the folders one after the
    other, joins the parts, and leaves out steps that it has.
    """

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        self._run = wandb.init(
            id=_remembered(folder / ".wandb_id", lambda: uuid.uuid4().hex[:8]),
            name=folder.name,
            dir=str(folder),
            config=config,
            resume="allow",
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs them together."""
        self._run.log(values, step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs a picture."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in `mlflow.db` and `mlflow/` beside the run folder unless MLFLOW_TRACKING_URI
    names a place: `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.

    A run that goes on is the same run there; points that it has are not logged again.
    """

    def __init__(self, folder: Path, config: dict[str, Any], first: int) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        runs, given = folder.parent.resolve(), os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(given or f"sqlite:///{runs / 'mlflow.db'}")
        self._artifacts = None if given else (runs / "mlflow").as_uri()
        self._run = _remembered(folder / ".mlflow_id", lambda: self._create(folder.name, config))
        self._logged: dict[str, int] | None = {} if first else None
        self._client.update_run(self._run, status="RUNNING")

    def _create(self, name: str, config: dict[str, Any]) -> str:
        wanted = os.environ["MLFLOW_EXPERIMENT_NAME"]
        known = self._client.get_experiment_by_name(wanted)
        number = (
            known.experiment_id
            if known
            else self._client.create_experiment(wanted, artifact_location=self._artifacts)
        )
        run = self._client.create_run(number, run_name=name).info.run_id
        self._client.log_dict(run, config, "config.json")
        return run

    def _is_new(self, name: str, step: int) -> bool:
        """Whether a point is not there yet."""
        if self._logged is None:
            return True
        if name not in self._logged:
            points = self._client.get_metric_history(self._run, name)
            self._logged[name] = max((point.step for point in points), default=-1)
        return step > self._logged[name]

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs them together."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = round(time.time() * 1000)
        new = [Metric(n, v, now, step) for n, v in values.items() if self._is_new(n, step)]
        if new:
            self._client.log_batch(self._run, metrics=new)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs a picture."""
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
    """Ends a command before its work where something that it shall log to is not installed.

    Raises:
        UserError: names the package, and the line that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f'train.log: {name} is not installed: pip install -e ".[{name}]", or leave it out'
            )
    if names:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)  # read when the package is imported


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """The text in a file of the run folder; made and written the first time."""
    if not path.exists():
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")
