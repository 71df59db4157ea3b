"""Where a run stands, and what an epoch came to; with every generator that a resumed run draws from."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
            "seconds": self.seconds,
            **self.metrics,  # last: not all epochs have them
        }


@dataclass(slots=True)
class Progress:
    """Where a run stands, after an optimiser step; with weights, average, optimiser, scaler and
    generators all that a resumed one needs.

    Attributes:
        epoch, batch: the next one; a batch after the epoch's last means that its evaluation is next.
        stale: evaluations since the best.
        totals, images: weighted losses times images of the epoch so far, and those images.
        seconds: of the epoch so far, over all the runs that it took.
        unreadable: image files that could not be read, a line each.
        history: a row of values for each epoch that is done.
        skipped, skipped_in_row: steps left out since their numbers were not finite; in the end of
            which no other one came.
        parts: in how many parts each batch is computed, since the memory was full.
    """

    epoch: int = 0
    batch: int = 0
    best_ap: float = -1.0
    stale: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    images: int = 0
    seconds: float = 0.0
    unreadable: set[str] = field(default_factory=set[str])
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    skipped: int = 0
    skipped_in_row: int = 0
    parts: int = 1


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
