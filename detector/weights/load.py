"""Trained weights, from a checkpoint (.pt) or a darknet file (.weights), and the model they belong to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detector.build import Detector, build_model, build_placement, build_postprocess
from detector.config import Config, config_from_dict, config_to_dict, replace_values
from detector.data import LoadedSample, collate, sample_without_labels
from detector.engine import Hardware, load_checkpoint, load_weights, save_checkpoint
from detector.errors import UserError
from detector.evaluation import predict
from detector.models import Header, save_darknet
from detector.structures import Detections
from detector.weights.darknet import (
    DarknetOptions,
    Weights,
    is_darknet_file,
    named_decoder,
    network,
    read_config,
    read_darknet,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A trained model and what it was trained as."""

    model: Detector
    config: Config
    names: tuple[str, ...]
    notes: list[str] = field(default_factory=list[str])


def read_weights(
    path: Path, config: Config | None = None, options: DarknetOptions | None = None
) -> Weights:
    """Weights of either kind.

    Args:
        path: a checkpoint, or a darknet file.
        config: of the network of a darknet file; checkpoints bring their own.
        options: what the user says of a darknet file.

    Raises:
        UserError: missing, damaged, of another network, or a darknet file without a config.
    """
    if is_darknet_file(path):
        if config is None:
            raise UserError(
                f"{path}: a darknet file does not say what network it is; give --cfg, a YAML of "
                f"configs/ or darknet's own .cfg"
            )
        return read_darknet(path, config, options or DarknetOptions())
    content = load_checkpoint(path)
    darknet = content.get("darknet")
    return Weights(
        source=str(path),
        config=config_from_dict(content["config"], str(path)),
        names=tuple(content["names"]),
        tensors=content["weights"],
        header=Header(*darknet["header"]) if darknet else None,
        order=darknet["order"] if darknet else None,
    )


def nameless(names: Sequence[str]) -> bool:
    """Whether these are only numbers, because nobody said the names."""
    return tuple(names) == tuple(f"class_{n}" for n in range(len(names)))


def save_weights(weights: Weights, path: Path) -> None:
    """Writes complete weights as a checkpoint, with what a darknet file said besides."""
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
    """Writes weights as darknet's file, in the order they came in unless said; returns the order."""
    model = network(weights.config.model, len(weights.names))
    load_weights(model, weights.tensors, weights.source)
    order = str(order or weights.order or model.orders[0])
    save_darknet(model, path, header=weights.header, order=order)
    return order


def load_model(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    dataset: str | None = None,
    cfg: str | None = None,
    options: DarknetOptions | None = None,
) -> Loaded:
    """A trained detector.

    Args:
        path: a best.pt or last.pt (its averaged weights), or a darknet file.
        overrides: `key=value` words; for a checkpoint those of the sections that do not shape the model.
        dataset: a data YAML in the place of the one trained on.
        cfg: the network of a darknet file.
        options: what the user says of a darknet file.

    Raises:
        UserError: missing, damaged, incomplete, or it does not fit its config.
    """
    options = options or DarknetOptions()
    if is_darknet_file(path):
        config = None if cfg is None else read_config(cfg, overrides, data=dataset)
        weights = read_weights(path, config, options)
        if not weights.complete:
            raise UserError(
                f"{path}: holds only the first part of the network; it finds nothing yet"
            )
        config = weights.config
    else:
        if cfg is not None:
            raise UserError(f"{path}: a checkpoint brings its config; leave --cfg {cfg} out")
        allowed = ("data", "eval", "train", "model.decoder")
        for word in overrides:
            if not word.startswith((*(f"{key}." for key in allowed), "model.decoder=")):
                raise UserError(
                    f"{word}: the checkpoint fixes this; only "
                    f"{', '.join(f'{section}.*' for section in allowed)} can change"
                )
        weights = read_weights(path)
        values = config_to_dict(weights.config)
        config = config_from_dict(values, str(path), overrides, data=dataset)
        if options.decoder is not None:
            decoder = named_decoder(options.decoder, config.model)
            config = replace_values(config, {"model.decoder": decoder})
    model = build_model(config.model, len(weights.names))
    load_weights(model, weights.tensors, str(path))
    return Loaded(model, config, weights.names, weights.notes)


def build_detector(
    loaded: Loaded, hardware: Hardware, *, conf: float
) -> Callable[[np.ndarray], Detections]:
    """A function from an image, uint8 [H, W, 3] RGB, to what it shows, in the image's pixels."""
    model = hardware.place(loaded.model)
    config = loaded.config
    postprocess, protocol = build_postprocess(config.eval, conf), build_placement(config)

    def detect(image: np.ndarray) -> Detections:
        size = np.array([image.shape[:2]])
        _, (shape,) = protocol.plan(size, 1)
        batch = collate([LoadedSample(*protocol.place(sample_without_labels(image), shape))])
        ((detected,),) = predict(model, [batch], postprocess, hardware=hardware)
        return detected.detections

    return detect
