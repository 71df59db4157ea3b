"""Landscapes: the loss around trained weights, and the output of a random network."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from detector.build import build_criterion, build_hardware, build_network, load_first_batches
from detector.config import Config, config_from_dict, config_to_dict
from detector.device import Hardware, scale_images
from detector.errors import UserError
from detector.evaluation.loss_grid import (
    ValueGrid,
    compute_grid,
    digest_weights,
    draw_direction,
)
from detector.nn import activation, initialise_weights
from detector.structures import Batch
from detector.weights.load import build_with_weights, read_weights

POINTS_PER_WRITE = 10
OUTPUT_LAYERS, OUTPUT_WIDTH = 5, 64


@dataclass(frozen=True, slots=True)
class LandscapeSettings:
    """What is computed.

    Attributes:
        axes: 1 for a slice, 2 for a surface.
        steps: values along each axis, odd, so that the trained weights are one of them.
        reach: the axes go from -reach to reach; 1 moves each filter by a vector of its own norm.
        images: how many, of the start of the split.
        split: train or val; images are placed as in an evaluation, without augmentation.
        seed: of the directions.
        overrides: `key=value` words for each checkpoint's config.
        data: a data YAML in place of the one trained on.
    """

    axes: int = 2
    steps: int = 25
    reach: float = 1.0
    images: int = 512
    split: str = "val"
    seed: int = 0
    overrides: tuple[str, ...] = ()
    data: str | None = None

    def make_axes(self) -> list[np.ndarray]:
        """The steps along each axis."""
        axis = np.linspace(-self.reach, self.reach, self.steps)
        axis[self.steps // 2] = 0.0
        return [axis] * self.axes


def measure_loss_landscape(path: Path, settings: LandscapeSettings, file: Path) -> ValueGrid:
    """Computes the losses around a checkpoint's weights; values that `file` already has are kept.

    Args:
        path: a checkpoint of a detector or a classifier, or a run folder, whose best.pt is taken.
        settings: what to compute.
        file: .npz, of which an interrupted computation is resumed.

    Raises:
        UserError: mistakes in the checkpoint or the settings, no images, or `file` has other values.
    """
    path = path / "best.pt" if path.is_dir() else path
    weights = read_weights(path)
    if not weights.complete:
        raise UserError(f"{path}: holds only the first layers of a network, which has no loss")
    words = [*settings.overrides, *([f"data.dataset={settings.data}"] if settings.data else [])]
    config = config_from_dict(config_to_dict(weights.config), str(path), words)
    hardware = build_hardware(config)
    model = hardware.place(build_with_weights(build_network, weights))
    batches, images = load_first_batches(config, settings.split, settings.images, hardware)
    about = {
        "weights": digest_weights(model),
        **images,
        "seed": settings.seed,
        "axes": [axis.tolist() for axis in settings.make_axes()],
    }
    grid = ValueGrid(file, settings.make_axes(), about, every=POINTS_PER_WRITE)
    generator = torch.Generator().manual_seed(settings.seed)
    directions = [draw_direction(model, generator) for _ in range(settings.axes)]
    loss = _make_loss(config, model, batches, hardware, len(weights.names))
    done = int(grid.done.sum())
    with tqdm(total=grid.done.size, initial=done, desc=path.parent.name, disable=None) as progress:
        compute_grid(model, directions, grid, loss, on_point=progress.update)
    return grid


def _make_loss(
    config: Config,
    model: Any,
    batches: Sequence[Batch],
    hardware: Hardware,
    num_classes: int,
) -> Callable[[nn.Module], float]:
    """The training loss of the batches, their mean by images."""
    criterion = build_criterion(config, model, num_classes).to(hardware.device)
    images = sum(map(len, batches))

    def compute(network: nn.Module) -> float:
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            with hardware.autocast():
                raw = network(scale_images(batch.images))
            losses = criterion(raw, batch, lambda counts: counts)
            value = sum(criterion.weights[name] * each for name, each in losses.items())
            total += float(value) * len(batch) / images
        return float(total)

    return compute


def compute_output_landscape(
    name: str, *, steps: int, reach: float, seed: int, init: str = "he_normal"
) -> tuple[np.ndarray, np.ndarray]:
    """The output of a random network of two inputs, as in figure 3 of the Mish paper.

    Five linear layers, 64 units in the hidden ones (our choice), an activation between them, no
    BatchNorm; the same weights for every activation.

    Args:
        name: of the activation.
        steps: points along each input.
        reach: inputs go from -reach to reach.
        seed: of the weights.
        init: in `INITIALISERS`.

    Returns:
        The inputs float64 [steps] and the outputs float64 [steps, steps], by first and second input.
    """
    act = activation(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [2, *[OUTPUT_WIDTH] * (OUTPUT_LAYERS - 1), 1]
        linear = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        network = nn.Sequential(*linear)
        initialise_weights(network, init)
    layers = [layer for each in linear for layer in (each, act(each.out_features))][:-1]
    axis = torch.linspace(-reach, reach, steps, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis).float()
    with torch.no_grad():
        output = nn.Sequential(*layers).eval()(points)
    return axis.numpy(), output.view(steps, steps).double().numpy()


def summarise(values: np.ndarray, axes: Sequence[np.ndarray]) -> dict[str, Any]:
    """Centre, minimum and its place, maximum, and the number of values that are non-finite."""
    finite = np.isfinite(values)
    about: dict[str, Any] = {
        "centre": float(values[tuple(n // 2 for n in values.shape)]),
        "non_finite": int((~finite).sum()),
    }
    if finite.any():
        place = np.unravel_index(np.argmin(np.where(finite, values, np.inf)), values.shape)
        about |= {
            "minimum": float(values[place]),
            "minimum_at": [float(axis[n]) for axis, n in zip(axes, place, strict=True)],
            "maximum": float(values[finite].max()),
        }
    return about
