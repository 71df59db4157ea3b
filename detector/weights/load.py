"""Trained weights from a checkpoint (.pt) or a darknet file (.weights), and the model they belong to.

`load_model` also opens exported files (.onnx, OpenVINO's .xml, .pt2), which cannot be trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from detector.build import Detector, build_model, build_network, default_num_classes
from detector.config import Config, ModelConfig, config_from_dict, config_to_dict, replace_values
from detector.engine import (
    load_checkpoint,
    load_weights,
    reading_checkpoint,
    require_same_shapes,
    save_checkpoint,
)
from detector.errors import UserError
from detector.export import ExportedModel, is_exported_file, open_exported
from detector.models import Header, save_darknet, usual_order
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
        model: a network, or an exported file in its place.
        config: with which it was trained.
        names: the class names, by label.
        notes: what was assumed about its file, a line each.
    """

    model: Detector | ExportedModel
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
        UserError: missing, damaged, of another network, with numbers that are non-finite, or a darknet
            file without a config.
    """
    weights = _read_weights(path, config, options)
    for name, tensor in weights.tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise UserError(
                f"{path}: {count:,} of the {tensor.numel():,} numbers of {name} are non-finite: the file "
                f"is damaged, or its training diverged; use other weights"
            )
    return weights


def _read_weights(path: Path, config: Config | None, options: DarknetOptions | None) -> Weights:
    """Reads weights, as `read_weights` without its check of the numbers."""
    if is_exported_file(path):
        raise UserError(
            f"{path}: an exported file only detects; give the checkpoint or the .weights it was made from"
        )
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
    order = str(order or weights.order or usual_order(model))
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
        path: a best.pt or last.pt, of which the EMA weights are loaded; a darknet file; or an exported
            file: .onnx, .xml, .pt2.
        overrides: `key=value` words; those for a checkpoint or an exported file cannot change the
            network.
        dataset: a data YAML in place of the one trained on.
        cfg: the network of a darknet file.
        options: how to read a darknet file.

    Raises:
        UserError: missing, damaged, incomplete, or the weights do not fit the network.
    """
    options = options or DarknetOptions()
    if is_exported_file(path):
        return _load_exported(path, overrides, dataset, cfg)
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


def make_random_model(cfg: str, overrides: Sequence[str] = ()) -> LoadedModel:
    """A detector with random weights and placeholder names, to measure its speed.

    Raises:
        UserError: mistakes in the config; or it is a classifier.
    """
    config = read_config(cfg, overrides)
    count = default_num_classes(config.model)
    names = tuple(f"class_{number}" for number in range(count))
    return LoadedModel(build_model(config.model, count), config, names)


def _load_exported(
    path: Path, overrides: Sequence[str], dataset: str | None, cfg: str | None
) -> LoadedModel:
    """An exported file; its metadata hold the config."""
    if cfg is not None:
        raise UserError(f"{path}: an exported file holds its config; remove --cfg {cfg}")
    _require_allowed(overrides, ("data", "eval", "train"), "exported file")
    model = open_exported(path)
    metadata = model.metadata
    if metadata.shape is not None:  # a smaller last batch is padded
        overrides = [f"eval.batch_size={metadata.shape[0]}", *overrides]
    # autocast does not reach into another runtime
    overrides = [*overrides, "train.precision=fp32"]
    config = config_from_dict(metadata.config, str(path), overrides, data=dataset)
    return LoadedModel(model, config, metadata.names, [f"{path}: {metadata}"])


def _override_checkpoint(
    weights: Weights, overrides: Sequence[str], dataset: str | None, decoder: str | None
) -> Config:
    """A checkpoint's config with the command line's overrides, which cannot change its network."""
    _require_allowed(overrides, ("data", "eval", "train", "model.decoder"), "checkpoint")
    values = config_to_dict(weights.config)
    config = config_from_dict(values, weights.source, overrides, data=dataset)
    if decoder is None:
        return config
    return replace_values(config, {"model.decoder": make_decoder_config(decoder, config.model)})


def _require_allowed(overrides: Sequence[str], allowed: Sequence[str], kind: str) -> None:
    """Raises a UserError for an override of what the file fixes."""
    for word in overrides:
        if not word.startswith(tuple(f"{key}{end}" for key in allowed for end in (".", "="))):
            raise UserError(
                f"{word}: the {kind} fixes this; only "
                f"{', '.join(f'{section}.*' for section in allowed)} can change"
            )
