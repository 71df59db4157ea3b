"""The state of a run, the result of an epoch, and the random generators of a resumed run."""

import random
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The result of an epoch.

    Attributes:
        epoch: counted from 0; of `epochs`.
        losses: weighted means, as they enter the total loss.
        metrics: of the EMA weights, {"AP": ...}; empty if the epoch was not evaluated.
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
        """Its row of results.csv."""
        losses = {f"loss_{name}": value for name, value in self.losses.items()}
        return {
            "epoch": self.epoch + 1,
            **losses,
            "lr": self.lr,
            "seconds": self.seconds,
            **self.metrics,  # last, since not all epochs have them
        }


@dataclass(slots=True)
class Progress:
    """The state of a run after an optimizer step.

    Together with the weights, their EMA, optimizer, scaler and generators it is all that a resumed run
    needs.

    Attributes:
        epoch, batch: the next ones; a batch beyond the epoch's last means that its evaluation is next.
        stale: evaluations since the best one.
        totals, images: weighted losses times images of the epoch so far, and the number of those images.
        seconds: time spent on the epoch so far, over all sessions that it took.
        unreadable: a line for each image file that could not be read.
        history: a row of values for each finished epoch.
        skipped, skipped_in_row: non-finite steps that were skipped, in all and since the last update.
        chunks: the number of chunks in which each batch is computed; above 1 once memory ran out.
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
    chunks: int = 1

    def begin_epoch(self) -> None:
        """Advances to the first batch of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.totals, self.images, self.seconds = {}, 0, 0.0

    def state_dict(self, process_group: ProcessGroup) -> dict[str, Any]:
        """Plain values and CPU tensors; to be called on every rank."""
        state = {name: getattr(self, name) for name in self._names()}
        totals = process_group.gather_objects(self.totals)
        state["totals"] = [{n: v.cpu() for n, v in each.items()} for each in totals]
        state["unreadable"] = sorted(set().union(*process_group.gather_objects(self.unreadable)))
        state["history"] = list(self.history)
        state["parts"] = state.pop("chunks")  # the key of the files
        return state

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Any], process_group: ProcessGroup, device: torch.device
    ) -> "Progress":
        """The inverse of `state_dict`, which another number of ranks may have written.

        Keys that an older version did not write have their defaults.
        """
        state = dict(state)
        state["chunks"] = state.pop("parts", 1)
        totals = _share_totals(state["totals"], process_group.rank, process_group.world_size)
        state["totals"] = {name: value.to(device) for name, value in totals.items()}
        state["unreadable"] = set(state["unreadable"])
        state["history"] = list(state.get("history", ()))
        return cls(**{name: state[name] for name in cls._names() if name in state})

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in fields(cls)]


def _share_totals(totals: list[dict[str, Tensor]], rank: int, size: int) -> dict[str, Tensor]:
    """A rank's share of sums that another number of ranks wrote; rank 0 gets all of them then."""
    if len(totals) == size:
        return totals[rank]
    share = 1.0 if rank == 0 else 0.0
    names = totals[0] if totals else {}
    return {name: share * torch.stack([each[name] for each in totals]).sum(0) for name in names}


def get_generator_states() -> dict[str, Any]:
    """The state of every generator of this process that a model may draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # for users' code; ours does not draw from it
    return {
        "cpu": torch.get_rng_state(),
        "cuda": cuda,
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Restores what `get_generator_states` returned; ignores GPUs that are missing here."""
    torch.set_rng_state(states["cpu"])
    for device, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    if "python" in states:
        version, words, gauss = states["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
