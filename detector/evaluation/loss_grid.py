"""The loss around trained weights: filter-normalised random directions, a grid of values that resumes.

Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018, section 4.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.errors import UserError, writing

TINY = 1e-10  # added to the norm of a direction, as in the paper's code


def draw_direction(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Draws a random direction in the space of a model's weights, normalised filter by filter.

    Each filter (a slice of the first dimension of a weight) of the direction gets the norm of the model's
    own filter, so that networks whose weights differ in scale can be compared. Biases, BatchNorm's
    parameters and those of activations, all vectors, are not moved; neither are running statistics.

    Args:
        model: gives shapes and norms.
        generator: on the CPU; the same seed gives models of the same shapes the same random numbers.

    Returns:
        By the name of the weight, on its device.
    """
    direction = {}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
        norms, own = (each.detach().flatten(1).norm(dim=1) for each in (drawn, weight))
        scale = own / (norms + TINY)
        direction[name] = drawn * scale.view(-1, *(1,) * (weight.ndim - 1))
    return direction


@torch.no_grad()
def move_weights(
    model: nn.Module,
    start: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    steps: Sequence[float],
) -> None:
    """Sets the weights of a model to start + the sum of step x direction; those without stay.

    Args:
        model: is changed in place.
        start: a copy of its weights, by name.
        directions: as drawn by `draw_direction`.
        steps: one for each.
    """
    for name, weight in model.named_parameters():
        if name in directions[0]:
            weight.copy_(start[name])
            for direction, step in zip(directions, steps, strict=True):
                weight.add_(direction[name], alpha=step)


class ValueGrid:
    """Losses at the points of a grid, kept in a file.

    Attributes:
        path: of the file, .npz.
        axes: the steps along each direction, one direction or two.
        values: float64, by step along each direction.
        done: bool, of the same shape: which were computed.
    """

    def __init__(
        self, path: Path, axes: Sequence[np.ndarray], about: Mapping[str, Any], every: int = 1
    ) -> None:
        """Opens the file of an interrupted computation, or starts one.

        Args:
            path: of the file.
            axes: the steps.
            about: everything that the values depend on, plain values.
            every: points between two writes.

        Raises:
            UserError: the file is of another computation, or damaged.
        """
        self.path, self.axes, self.every = path, [np.asarray(axis) for axis in axes], every
        self.about = json.dumps(about, sort_keys=True)
        shape = tuple(len(axis) for axis in self.axes)
        self.values, self.done = np.full(shape, np.nan), np.zeros(shape, bool)
        self._unsaved = 0
        if path.is_file():
            self._read()

    def _read(self) -> None:
        remedy = "delete it, or choose another folder with --out"
        try:
            with np.load(self.path, allow_pickle=False) as file:
                about = str(file["about"])
                values, done = file["values"], file["done"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: not a file of values ({error}); {remedy}") from None
        if about != self.about or values.shape != self.values.shape or done.dtype != bool:
            raise UserError(
                f"{self.path}: has values of other weights, images or steps than asked for; {remedy}"
            )
        self.values, self.done = values, done

    def list_missing(self) -> Iterator[tuple[int, ...]]:
        """The points that were not computed yet, row by row."""
        yield from (tuple(point) for point in np.argwhere(~self.done).tolist())

    def steps(self, point: tuple[int, ...]) -> list[float]:
        """The steps of a point along each direction."""
        return [float(axis[number]) for axis, number in zip(self.axes, point, strict=True)]

    def put(self, point: tuple[int, ...], value: float) -> None:
        """Notes a value; writes the file after `every` values."""
        self.values[point], self.done[point] = value, True
        self._unsaved += 1
        if self._unsaved >= self.every:
            self.save()

    def save(self) -> None:
        """Writes the file; one that exists is replaced atomically."""
        new = self.path.with_name(f"{self.path.name}.new")
        with writing(self.path):
            with new.open("wb") as file:
                arrays: dict[str, Any] = {f"axis{n}": axis for n, axis in enumerate(self.axes)}
                arrays |= {"values": self.values, "done": self.done, "about": self.about}
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        self._unsaved = 0


def digest_weights(model: nn.Module) -> str:
    """A hash of all parameters and buffers: whether a file of values is of these weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


@torch.no_grad()
def compute_grid(
    model: nn.Module,
    directions: Sequence[Mapping[str, Tensor]],
    grid: ValueGrid,
    loss: Callable[[nn.Module], float],
    on_point: Callable[[], object] = lambda: None,
) -> None:
    """Computes the missing values of a grid; the weights are those of the start afterwards.

    The model is in evaluation mode: BatchNorm uses the running statistics of the trained network
    everywhere, as in the paper's code.

    Args:
        model: at the centre of the grid.
        directions: one for each axis.
        grid: is filled.
        loss: of the model with its present weights.
        on_point: called after each value.
    """
    model.eval()
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    try:
        for point in grid.list_missing():
            move_weights(model, start, directions, grid.steps(point))
            grid.put(point, loss(model))
            on_point()
    finally:
        zero = [0.0] * len(directions)
        move_weights(model, start, directions, zero)
        grid.save()
