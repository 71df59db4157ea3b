"""`detector.train` and `detector.evaluate`: the commands as functions, for scripts and notebooks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.api.run_request import RunRequest
from detector.api.train import open_run
from detector.api.validation import Evaluation, evaluate_weights
from detector.engine import ProcessGroup, load_checkpoint
from detector.errors import UserError
from detector.weights.darknet import DarknetOptions


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished or stopped run.

    Attributes:
        folder: of the run; `Detector(folder)` loads its best weights.
        ap: COCO AP of the best weights so far, in [0, 1]; -1 if none was evaluated.
        metrics: all numbers of that evaluation, by name: AP, AP50, AP75 ...
    """

    folder: Path
    ap: float
    metrics: dict[str, float]


def train(
    cfg: str,
    *,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Trains a detector, as `tools/train.py` does.

    Args:
        cfg: a path, a name in configs/, or a darknet .cfg.
        data: the data set: a data YAML, or a name in data/; default: the config's.
        weights: to start from, a .pt or a .weights.
        out: the run folder; default runs/NAME-OF-CFG. If it holds a run, a number is appended.
        resume: resume the newest run of that folder instead, if there is one, as `--resume` does.
        settings: config settings by dotted key: `**{"train.epochs": 10}`, or with two underscores in
            place of the dot: `train__epochs=10`.

    Raises:
        UserError: as the command.

    Example:
        >>> result = train("yolov4-pacsp-n-mish", train__epochs=1)  # doctest: +SKIP
        >>> result.metrics["AP50"]  # doctest: +SKIP
    """
    request = RunRequest(
        cfg=cfg,
        folder=Path(out or Path("runs", Path(cfg).stem)),
        overrides=tuple(make_words(settings)),
        data=None if data is None else str(data),
        weights=None if weights is None else Path(weights),
        darknet=DarknetOptions(),
    )
    run, folder = open_run(request, ProcessGroup(), "" if resume else None)
    hint = "resume with: the same call and resume=True"
    ap = run.train_and_evaluate(folder, (), hint)
    metrics = load_checkpoint(folder.best)["metrics"] if folder.best.exists() else {}
    return TrainingResult(folder.path, ap, dict(metrics))


def evaluate(
    weights: str | Path,
    *,
    data: str | Path | None = None,
    cfg: str | None = None,
    **settings: Any,
) -> Evaluation:
    """Evaluates trained weights on a validation split, as `tools/val.py` does.

    Args:
        weights: a .pt, a .weights, an exported file, or a run folder.
        data: a data YAML in place of the one trained on.
        cfg: the network of a .weights.
        settings: config settings, as for `train`.

    Returns:
        The evaluation; `evaluation.result.metrics["AP"]` and the other numbers of COCO in [0, 1].

    Raises:
        UserError: as the command.
    """
    return evaluate_weights(
        Path(weights),
        make_words(settings),
        dataset=None if data is None else str(data),
        cfg=cfg,
        options=DarknetOptions(),
    )


def make_words(settings: dict[str, Any]) -> list[str]:
    """Settings as `key=value` words; values are those of JSON, paths are texts.

    Raises:
        UserError: a value that YAML cannot express.

    Example:
        >>> make_words({"train__epochs": 3, "model.activation": "mish"})
        ['train.epochs=3', 'model.activation="mish"']
    """
    words = []
    for key, value in settings.items():
        try:
            text = json.dumps(str(value) if isinstance(value, Path) else value)
        except TypeError:
            raise UserError(
                f"{key}: a value of type {type(value).__name__} is no setting"
            ) from None
        words.append(f"{key.replace('__', '.')}={text}")
    return words
