"""Darknet's files as this toolkit uses them: a .cfg as a config, a .weights as weights with a config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.build import DARKNET_EPS, build_classifier, build_model, find_variant
from detector.config import (
    LARGEST_STRIDE,
    Config,
    DecoderConfig,
    ModelConfig,
    config_from_dict,
    load_config,
    replace_values,
)
from detector.data import COCO_NAMES
from detector.decode import Decoder
from detector.errors import UserError
from detector.models import (
    VARIANTS,
    Header,
    cfg_classes,
    cfg_with_classes,
    file_size,
    load_darknet,
    parse_cfg,
    read_header,
)
from detector.weights.published import PublishedFile, published_as

DECODERS = ("sigmoid", "darknet", "exp")
PREFIX = re.compile(r"\.conv\.\d+$")  # darknet's name for the first so many layers of a file
CLASSIFIER_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class DarknetOptions:
    """What the user may say of a .weights file; None and False leave it to the file.

    Attributes:
        order: of the convolutions.
        decoder: "sigmoid" for (2s)^2, "darknet" for what darknet's cfg of the network says, "exp" plain.
        bn_eps: of BatchNorm.
        partial: the file may be a prefix.
        names: a text file with the class names, one a line.
    """

    order: str | None = None
    decoder: str | None = None
    bn_eps: float | None = None
    partial: bool = False
    names: Path | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors of a model, and what they were trained as.

    Attributes:
        source: the file, for messages.
        config: of their model; BatchNorm eps and decoder are theirs.
        names: the class names, by label.
        tensors: a state dict, or the part of one that a prefix file holds.
        complete: whether that is all of it.
        header, order: of the darknet file they came from, if they did.
        notes: what was assumed, a line each.
    """

    source: str
    config: Config
    names: tuple[str, ...]
    tensors: dict[str, Tensor]
    complete: bool = True
    header: Header | None = None
    order: str | None = None
    notes: list[str] = field(default_factory=list[str])


def is_darknet_file(path: Path) -> bool:
    """Whether a file's name says that it is darknet's."""
    return path.suffix == ".weights" or PREFIX.search(path.name) is not None


def read_config(name: str, overrides: Sequence[str] = (), *, data: str | None = None) -> Config:
    """The configuration of a run, from a YAML or from a darknet .cfg (its network, and defaults).

    Raises:
        UserError: all mistakes, one line each.
    """
    path = Path(name)
    if path.suffix != ".cfg":
        return load_config(name, overrides, data=data)
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    for word in overrides:
        if word.split("=")[0] in ("model.arch", "model.activation", "model.anchors"):
            raise UserError(f"{word}: {name} fixes this; change it there")
    text = path.read_text(encoding="utf-8", errors="replace")
    sections = parse_cfg(text, name)
    net = sections[0]
    side = max(net.whole("width", "416", least=1), net.whole("height", "416", least=1))
    return config_from_dict(
        {
            "model": {"arch": path.name, "darknet_cfg": text},
            "data": {"size": -(-side // LARGEST_STRIDE) * LARGEST_STRIDE},
        },
        name,
        overrides,
        data=data,
    )


def network(config: ModelConfig, num_classes: int) -> Any:
    """The network of a config; unlike `build_model` it takes classifiers, too."""
    if config.darknet_cfg is None and find_variant(config).neck is None:
        return build_classifier(config, num_classes)
    return build_model(config, num_classes)


def read_darknet(path: Path, config: Config, options: DarknetOptions) -> Weights:
    """A darknet file in the network of a config, with the decoder and BatchNorm eps that it wants.

    Raises:
        UserError: not a file of this network, or names for another number of classes.
    """
    partial = options.partial or PREFIX.search(path.name) is not None
    header = read_header(path)
    classes = _classes_of_file(path, config.model, header, partial)
    own = _for_classes(config.model, classes)
    config = replace_values(config, {"model": own})
    model = network(own, classes)
    got = load_darknet(model, path, order=options.order, partial=partial)
    notes = [
        f"{path}: {got.convolutions} of {got.total} convolutions, order {got.order}, "
        f"{classes} classes, seen {header.seen:,} images"
    ]
    known = [
        entry for entry in published_as(path) if entry.order == got.order or len(model.orders) == 1
    ]
    config = _as_published(config, known, options, notes)
    tensors = model.state_dict()
    complete = got.convolutions == got.total
    if not complete:
        kept = set(map(id, got.tensors))
        named = dict(model.named_parameters()) | dict(model.named_buffers())
        tensors = {name: tensor for name, tensor in named.items() if id(tensor) in kept}
    return Weights(
        source=str(path),
        config=config,
        names=_names(options.names, classes),
        tensors=tensors,
        complete=complete,
        header=header,
        order=got.order,
        notes=notes,
    )


def _as_published(
    config: Config, known: Sequence[PublishedFile], options: DarknetOptions, notes: list[str]
) -> Config:
    """The config with the decoder and the BatchNorm eps of a file; says what it had to assume.

    What the user says comes first, then what all files published under this name and size agree on, then
    darknet's way.
    """
    model = config.model
    choices: dict[str, Any] = {}
    decoders = {(entry.decoder.size, entry.decoder.scale_x_y) for entry in known}
    if options.decoder is not None:
        choices["model.decoder"] = named_decoder(options.decoder, model)
    elif model.decoder is None and len(decoders) == 1:
        choices["model.decoder"] = known[0].decoder
        notes.append(f"decoder {_words(known[0].decoder)}: as {known[0].publisher} published it")
    elif model.decoder is None:
        choices["model.decoder"] = named_decoder("darknet", model)
        whose = (
            "as the cfg says"
            if model.darknet_cfg
            else "assumed, as darknet has it for this network"
        )
        notes.append(
            f"decoder {_words(choices['model.decoder'])}: {whose}; weights trained with a PyTorch "
            f"project may need --decoder sigmoid or --decoder exp"
        )
    epsilons = {entry.bn_eps for entry in known}
    if options.bn_eps is not None:
        choices["model.bn_eps"] = options.bn_eps
    elif model.bn_eps is None:
        choices["model.bn_eps"] = known[0].bn_eps if len(epsilons) == 1 else DARKNET_EPS
    return replace_values(config, choices)


def named_decoder(name: str, model: ModelConfig) -> DecoderConfig:
    """The decoder that a word of the command line means, for a network.

    Raises:
        UserError: not one of `DECODERS`.
    """
    if name == "sigmoid":
        return DecoderConfig(size="sigmoid", scale_x_y=(2.0,))
    if name == "exp":
        return DecoderConfig(size="exp", scale_x_y=(1.0,))
    if name != "darknet":
        raise UserError(f"--decoder {name}: expected one of {', '.join(DECODERS)}")
    if model.darknet_cfg is not None:
        own = network(replace_values(model, {"decoder": None}), usual_classes(model)).decoder
        return DecoderConfig(size=own.size, scale_x_y=own.scale_x_y)
    variant = find_variant(model)
    size: Any = variant.darknet_size
    return DecoderConfig(size=size, scale_x_y=variant.scale_x_y)


def _words(decoder: DecoderConfig) -> str:
    return str(Decoder(decoder.size, decoder.scale_x_y))


def usual_classes(model: ModelConfig) -> int:
    """How many classes the published weights of a network know; a cfg says it itself."""
    if model.darknet_cfg is not None:
        return cfg_classes(parse_cfg(model.darknet_cfg, model.arch))
    return CLASSIFIER_CLASSES if find_variant(model).neck is None else len(COCO_NAMES)


def _for_classes(model: ModelConfig, classes: int) -> ModelConfig:
    """The config of the same network for a file's number of classes; only a cfg has to change."""
    if model.darknet_cfg is None or usual_classes(model) == classes:
        return model
    text = cfg_with_classes(parse_cfg(model.darknet_cfg, model.arch), classes)
    return replace_values(model, {"darknet_cfg": text})


def _bytes(config: ModelConfig, classes: int, header: Header) -> int:
    with torch.device("meta"):
        return file_size(network(_for_classes(config, classes), classes), header)


def _classes_of_file(path: Path, config: ModelConfig, header: Header, partial: bool) -> int:
    """The number of classes for which the network has the file's size."""
    usual = usual_classes(config)
    size = path.stat().st_size
    expected = _bytes(config, usual, header)
    if size == expected or partial:
        return usual
    with_one, with_two = (_bytes(config, n, header) for n in (1, 2))
    more, rest = divmod(size - with_one, with_two - with_one)
    if more >= 0 and rest == 0:
        return 1 + more
    whose = [
        name
        for name in VARIANTS
        if name != config.arch and _bytes(ModelConfig(arch=name), usual, header) == size
    ]
    if whose:
        problem = f"of another network: it has the size of {whose[0]}"
    elif size < expected:
        problem = "truncated, or of another network"
    else:
        problem = "too long, or of another network"
    raise UserError(
        f"{path}: {problem}: {size:,} bytes; {config.arch} has {expected:,} with {usual} classes, and "
        f"{with_two - with_one:,} for each one more or less"
    )


def _names(path: Path | None, count: int) -> tuple[str, ...]:
    """Class names: the user's, COCO's for 80 classes, else numbers."""
    if path is not None:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected class names, one a line")
        lines = path.read_text(encoding="utf-8").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) != count:
            raise UserError(f"{path}: {len(names)} names, but the weights have {count} classes")
        return names
    return COCO_NAMES if count == len(COCO_NAMES) else tuple(f"class_{n}" for n in range(count))
