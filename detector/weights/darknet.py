"""Darknet's files: a .cfg read as a config, a .weights file read as weights with their config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.build import (
    DARKNET_EPS,
    build_decoder,
    build_model,
    build_network,
    default_num_classes,
    find_variant,
)
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
from detector.errors import UserError, read_regular_file
from detector.models import (
    VARIANTS,
    Header,
    file_size,
    load_darknet,
    parse_cfg,
    read_header,
    replace_cfg_classes,
)
from detector.weights.published import PublishedFile, match_published

DECODERS = ("sigmoid", "darknet", "exp")
# darknet names a file that holds only the first N layers NAME.conv.N
PREFIX = re.compile(r"\.conv\.\d+$")


@dataclass(frozen=True, slots=True)
class DarknetOptions:
    """How to read a .weights file; None and False: as its content or name suggests.

    Attributes:
        order: of the convolutions.
        decoder: of box sizes: "sigmoid" for (2s)^2, "exp" for exp(raw), "darknet" for what darknet's cfg
            of the network says.
        bn_eps: of BatchNorm.
        partial: the file may hold the first layers only.
        names: a text file with one class name per line.
    """

    order: str | None = None
    decoder: str | None = None
    bn_eps: float | None = None
    partial: bool = False
    names: Path | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors of a trained model, with its config and class names.

    Attributes:
        source: the file, for messages.
        config: of their model, with the BatchNorm eps and the decoder they were trained with.
        names: the class names, by label.
        tensors: a state dict; of a file with the first layers only, a part of one.
        complete: whether `tensors` is the whole state dict.
        header, order: of the darknet file they were read from; None for a checkpoint.
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
    """Whether a file has a darknet name: NAME.weights, or NAME.conv.N for the first N layers."""
    return path.suffix == ".weights" or PREFIX.search(path.name) is not None


def read_config(name: str, overrides: Sequence[str] = (), *, data: str | None = None) -> Config:
    """The config of a run, from a YAML or from a darknet .cfg, which sets the network only.

    Raises:
        UserError: all mistakes, one line each.
    """
    path = Path(name)
    if path.suffix != ".cfg":
        return load_config(name, overrides, data=data)
    content = read_regular_file(path)
    for word in overrides:
        if word.split("=")[0] in ("model.arch", "model.activation", "model.anchors"):
            raise UserError(f"{word}: {name} sets this; change it there")
    text = content.decode("utf-8-sig", errors="replace")
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


def read_darknet(path: Path, config: Config, options: DarknetOptions) -> Weights:
    """Reads a darknet file into the network of a config.

    Returns:
        The weights; their config has the file's number of classes, decoder and BatchNorm eps.

    Raises:
        UserError: a file of another network, a truncated one, or names for another number of classes.
    """
    partial = options.partial or PREFIX.search(path.name) is not None
    header = read_header(path)
    classes = _infer_num_classes(path, config.model, header, partial)
    config = replace_values(config, {"model": _with_num_classes(config.model, classes)})
    model = build_network(config.model, classes)
    result = load_darknet(model, path, order=options.order, partial=partial)
    notes = [
        f"{path}: {result.convolutions} of {result.total} convolutions, order {result.order}, "
        f"{classes} classes, seen {header.seen:,} images"
    ]
    known = [
        entry
        for entry in match_published(path)
        if entry.order == result.order or len(model.orders) == 1
    ]
    config = _add_published_settings(config, known, options, notes)
    tensors = model.state_dict()
    complete = result.convolutions == result.total
    if not complete:
        kept = set(map(id, result.tensors))
        named = dict(model.named_parameters()) | dict(model.named_buffers())
        tensors = {name: tensor for name, tensor in named.items() if id(tensor) in kept}
    return Weights(
        source=str(path),
        config=config,
        names=_read_class_names(options.names, classes),
        tensors=tensors,
        complete=complete,
        header=header,
        order=result.order,
        notes=notes,
    )


def _add_published_settings(
    config: Config, known: Sequence[PublishedFile], options: DarknetOptions, notes: list[str]
) -> Config:
    """The config with the decoder and the BatchNorm eps of a file; adds to `notes` what it assumed.

    In order of precedence: what the user says, what all files published under this name and size agree
    on, darknet's own settings.
    """
    model = config.model
    choices: dict[str, Any] = {}
    decoders = {(entry.decoder.size, entry.decoder.scale_x_y) for entry in known}
    if options.decoder is not None:
        choices["model.decoder"] = make_decoder_config(options.decoder, model)
    elif model.decoder is None and len(decoders) == 1:
        choices["model.decoder"] = known[0].decoder
        notes.append(
            f"decoder {_format_decoder(known[0].decoder)}: as {known[0].publisher} published it"
        )
    elif model.decoder is None:
        choices["model.decoder"] = make_decoder_config("darknet", model)
        reason = (
            "from the cfg"
            if model.darknet_cfg
            else "assumed, since darknet's cfg of this network has it"
        )
        decoder = _format_decoder(choices["model.decoder"])
        notes.append(
            f"decoder {decoder}: {reason}; weights trained with a PyTorch project may need "
            f"--decoder sigmoid or --decoder exp"
        )
    epsilons = {entry.bn_eps for entry in known}
    if options.bn_eps is not None:
        choices["model.bn_eps"] = options.bn_eps
    elif model.bn_eps is None:
        choices["model.bn_eps"] = known[0].bn_eps if len(epsilons) == 1 else DARKNET_EPS
    return replace_values(config, choices)


def make_decoder_config(name: str, model: ModelConfig) -> DecoderConfig:
    """The decoder that the command line's `--decoder NAME` means for a network.

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
        plain = replace_values(model, {"decoder": None})
        own = build_model(plain, default_num_classes(model)).decoder
        size: Any = own.size
        return DecoderConfig(size=size, scale_x_y=own.scale_x_y)
    variant = find_variant(model)
    size = variant.darknet_size
    return DecoderConfig(size=size, scale_x_y=variant.scale_x_y)


def _format_decoder(decoder: DecoderConfig) -> str:
    return str(build_decoder(decoder, len(decoder.scale_x_y)))


def _with_num_classes(model: ModelConfig, classes: int) -> ModelConfig:
    """The config of the same network for `classes` classes; only a darknet cfg states their number."""
    if model.darknet_cfg is None or default_num_classes(model) == classes:
        return model
    text = replace_cfg_classes(parse_cfg(model.darknet_cfg, model.arch), classes)
    return replace_values(model, {"darknet_cfg": text})


def _expected_size(config: ModelConfig, classes: int, header: Header) -> int:
    with torch.device("meta"):
        return file_size(build_network(_with_num_classes(config, classes), classes), header)


def _infer_num_classes(path: Path, config: ModelConfig, header: Header, partial: bool) -> int:
    """The number of classes with which the network has the file's size.

    Raises:
        UserError: there is none: a truncated file, or one of another network.
    """
    usual = default_num_classes(config)
    size = path.stat().st_size
    expected = _expected_size(config, usual, header)
    if size == expected or partial:
        return usual
    with_one, with_two = (_expected_size(config, n, header) for n in (1, 2))
    more, rest = divmod(size - with_one, with_two - with_one)
    if more >= 0 and rest == 0:
        return 1 + more
    others = [
        name
        for name, variant in VARIANTS.items()
        if variant.orders
        and name != config.arch
        and _expected_size(ModelConfig(arch=name), usual, header) == size
    ]
    if others:
        problem = f"weights of another network, probably {others[0]}"
    elif size < expected:
        problem = "truncated, or weights of another network"
    else:
        problem = "too long, or weights of another network"
    raise UserError(
        f"{path}: {problem}: the file has {size:,} bytes; {config.arch} needs {expected:,} for {usual} "
        f"classes, and {with_two - with_one:,} more or less per class"
    )


def _read_class_names(path: Path | None, count: int) -> tuple[str, ...]:
    """Class names: the user's; else COCO's for 80 classes, and placeholders otherwise."""
    if path is not None:
        content = read_regular_file(path, hint="expected one class name per line")
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8 text; expected one class name per line") from None
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) != count:
            raise UserError(f"{path}: {len(names)} names, but the weights have {count} classes")
        return names
    return COCO_NAMES if count == len(COCO_NAMES) else tuple(f"class_{n}" for n in range(count))
