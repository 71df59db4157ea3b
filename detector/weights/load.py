"""Trained weights from a checkpoint (.pt) or a darknet file (.weights), and the model they belong to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from detector.build import Detector, build_model, build_network
from detector.config import Config, ModelConfig, config_from_dict, config_to_dict, replace_values
from detector.engine import (
    load_checkpoint,
    load_weights,
    reading_checkpoint,
    require_same_shapes,
    save_checkpoint,
)
from detector.errors import UserError
from detector.models import Header, save_darknet
from detector.weights.darknet import (
    DarknetOptions,
    Weights,
    is_darknet_file,
    make_decoder_config,
    read_config,
    read_darknet,
)

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A trained detector.

    Attributes:
        config: with which it was trained.
        names: the class names, by label.
        notes: what was assumed about its file, a line each.
    """

    model: Detector
    config: Config
    names: tuple[str, ...]
    notes: list[str] = field(default_factory=list[str])


def read_weights(
    path: Path, config: Config | None = None, options: DarknetOptions | None = None
) -> Weights:
    """Reads weights from a checkpoint or a darknet file.

    Args:
        path: a checkpoint, or a darknet file.
        config: of the network of a darknet file; a checkpoint holds its own.
        options: how to read a darknet file.

    Raises:
        UserError: missing, damaged, of another network, or a darknet file without a config.
    """
    if is_darknet_file(path):
        if config is None:
            raise UserError(
                f"{path}: a darknet file does not say which network it is; give --cfg, a YAML of "
                f"configs/ or darknet's own .cfg"
            )
        return read_darknet(path, config, options or DarknetOptions())
    content = load_checkpoint(path)
    darknet = content.get("darknet")
    with reading_checkpoint(path, "malformed: its config cannot be read"):
        config = config_from_dict(content["config"], str(path))
    return Weights(
        source=str(path),
        config=config,
        names=tuple(content["names"]),
        tensors=content["weights"],
        header=Header(*darknet["header"]) if darknet else None,
        order=darknet["order"] if darknet else None,
    )


def has_placeholder_names(names: Sequence[str]) -> bool:
    """Whether class names are placeholders, class_0, class_1 ..., since the file has none."""
    return tuple(names) == tuple(f"class_{n}" for n in range(len(names)))


def save_weights(weights: Weights, path: Path) -> None:
    """Writes complete weights as a checkpoint; keeps header and order of a darknet file."""
    content: dict[str, Any] = {
        "config": config_to_dict(weights.config),
        "names": list(weights.names),
        "weights": weights.tensors,
    }
    if weights.header is not None:
        header = weights.header
        numbers = [header.major, header.minor, header.revision, header.seen]
        content["darknet"] = {"header": numbers, "order": weights.order}
    save_checkpoint(path, content)


def export_darknet(weights: Weights, path: Path, *, order: str | None = None) -> str:
    """Writes weights as a darknet file and returns the order of its convolutions.

    `order` defaults to that of the file they were read from, else to the network's usual one.
    """
    model = build_with_weights(build_network, weights)
    order = str(order or weights.order or model.orders[0])
    save_darknet(model, path, header=weights.header, order=order)
    return order


def build_with_weights(build: Callable[[ModelConfig, int], Network], weights: Weights) -> Network:
    """Builds a network and loads complete weights into it.

    First without memory, since a checkpoint's config may describe a network of any size: only one that
    has the tensors of the file is built.

    Raises:
        UserError: the weights are not those of their config's network.
    """
    problem = "malformed: its network cannot be built"
    with reading_checkpoint(weights.source, problem), torch.device("meta"):
        planned = build(weights.config.model, len(weights.names))
        require_same_shapes(planned, weights.tensors, weights.source)
    model = build(weights.config.model, len(weights.names))
    load_weights(model, weights.tensors, weights.source)
    return model


def load_model(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    dataset: str | None = None,
    cfg: str | None = None,
    options: DarknetOptions | None = None,
) -> LoadedModel:
    """Loads a trained detector.

    Args:
        path: a best.pt or last.pt, of which the EMA weights are loaded; or a darknet file.
        overrides: `key=value` words; for a checkpoint, of sections that do not change the network.
        dataset: a data YAML in place of the one trained on.
        cfg: the network of a darknet file.
        options: how to read a darknet file.

    Raises:
        UserError: missing, damaged, incomplete, or the weights do not fit the network.
    """
    options = options or DarknetOptions()
    if is_darknet_file(path):
        config = None if cfg is None else read_config(cfg, overrides, data=dataset)
        weights = read_weights(path, config, options)
        if not weights.complete:
            raise UserError(
                f"{path}: holds only the first layers of the network and detects nothing; train from it"
            )
        config = weights.config
    else:
        if cfg is not None:
            raise UserError(f"{path}: a checkpoint holds its config; remove --cfg {cfg}")
        weights = read_weights(path)
        config = _override_checkpoint(weights, overrides, dataset, options.decoder)
    model = build_with_weights(build_model, replace(weights, config=config))
    return LoadedModel(model, config, weights.names, weights.notes)


def _override_checkpoint(
    weights: Weights, overrides: Sequence[str], dataset: str | None, decoder: str | None
) -> Config:
    """A checkpoint's config with the command line's overrides, which cannot change its network."""
    allowed = ("data", "eval", "train", "model.decoder")
    for word in overrides:
        if not word.startswith((*(f"{key}." for key in allowed), "model.decoder=")):
            raise UserError(
                f"{word}: the checkpoint fixes this; only "
                f"{', '.join(f'{section}.*' for section in allowed)} can change"
            )
    values = config_to_dict(weights.config)
    config = config_from_dict(values, weights.source, overrides, data=dataset)
    if decoder is None:
        return config
    return replace_values(config, {"model.decoder": make_decoder_config(decoder, config.model)})
