"""Networks: activations, normalisation, backbone, neck, head, anchors."""

from collections.abc import Callable
from functools import partial
from typing import Any

from detector.anchors import Anchors
from detector.command_names import format_command
from detector.config import ActivationConfig, BagConfig, DecoderConfig, ModelConfig, PartActivations
from detector.data import COCO_NAMES
from detector.decode import Decoder
from detector.errors import UserError
from detector.models import (
    VARIANTS,
    YOLO,
    BackboneClassifier,
    Classifier,
    DarknetNet,
    Variant,
    count_cfg_classes,
    parse_cfg,
)
from detector.nn import ActFactory, BatchNormSettings, DropBlock2d, activation, initialise_weights
from detector.registry import nearest

Detector = YOLO | DarknetNet
DARKNET_EPS, PYTORCH_EPS = 1e-5, 1e-4  # of BatchNorm
IMAGENET_CLASSES = 1000
# keys of `ModelConfig` that only some networks have -> the value that stands for their default
NETWORK_KEYS = {"small_images": False, "depth": None, "miwrc": "none"}


def build_activation(spec: str | ActivationConfig) -> ActFactory:
    """A registered activation, by its name or by name and parameters."""
    if isinstance(spec, str):
        return activation(spec)
    return activation(spec.name, **(spec.model_extra or {}))


def describe_network(config: ModelConfig) -> tuple[str, str]:
    """The names of architecture and activation; those of the parts, joined by /, where they differ."""
    if config.darknet_cfg is not None:
        return config.arch, "as in its cfg"
    spec = config.activation
    parts = [spec.backbone, spec.neck, spec.head] if isinstance(spec, PartActivations) else [spec]
    names = [part.name if isinstance(part, ActivationConfig) else part for part in parts]
    arch = config.arch if config.backbone is None else f"{config.arch} with {config.backbone}"
    return arch, "/".join(dict.fromkeys(names))


def build_decoder(config: DecoderConfig | None, levels: int) -> Decoder:
    """How raw values become boxes; by default with sizes of (2s)^2.

    Raises:
        UserError: values for another number of levels.
    """
    if config is None:
        return Decoder()
    if len(config.scale_x_y) not in (1, levels):
        raise UserError(
            f"model.decoder.scale_x_y has {len(config.scale_x_y)} values; the network has "
            f"{levels} levels"
        )
    return Decoder(config.size, config.scale_x_y)


def build_model(config: ModelConfig, num_classes: int, drop: DropBlock2d | None = None) -> Detector:
    """The detector, freshly initialised from torch's generator.

    Args:
        config: of the network.
        num_classes: of the data set.
        drop: DropBlock for the maps of the neck, in training; see `build_dropblock`.

    Raises:
        UserError: an unknown name, a classifier, anchors or decoder for another number of levels, or a
            cfg for another number of classes; DropBlock for a darknet cfg, which has no neck.
    """
    if config.darknet_cfg is not None:
        if drop is not None:
            raise UserError(
                "bag.dropblock: a network from a darknet cfg has no neck to put DropBlock in; set it to 0"
            )
        return _build_darknet(config, config.darknet_cfg, num_classes)
    variant = find_variant(config)
    if variant.neck is None:
        raise UserError(f"model.arch {config.arch} is a classifier; it detects no objects")
    backbone, part_act, norm = _build_backbone(config, find_backbone(config))
    neck = variant.neck(backbone.out_channels, act=part_act("neck"), norm=norm, drop=drop)
    if config.anchors == "auto":
        raise UserError(
            "model.anchors: auto needs a data set: a run resolves it when it starts, "
            f"{format_command('cluster_anchors')} prints numbers; give a list here, or remove it"
        )
    anchors = variant.anchors if config.anchors in (None, "published") else config.anchors
    levels = len(backbone.strides)
    if len(anchors) != levels:
        raise UserError(
            f"model.anchors has {len(anchors)} lists; {config.arch} has {levels} levels"
        )
    head = variant.head(
        neck.out_channels,
        num_classes=num_classes,
        num_anchors=len(anchors[0]),
        strides=backbone.strides,
        act=part_act("head"),
        norm=norm,
    )
    return YOLO(
        backbone,
        neck,
        head,
        anchors=anchors,
        strides=backbone.strides,
        decoder=build_decoder(config.decoder, levels),
        orders=_find_orders(config, variant),
    )


def build_anchors(config: ModelConfig, num_classes: int) -> Anchors:
    """The anchors of a network, by level; the published ones unless the config lists others.

    Raises:
        UserError: a classifier, or a cfg for another number of classes.
    """
    if config.darknet_cfg is not None:
        model = _build_darknet(config, config.darknet_cfg, num_classes)
        return tuple(tuple((w, h) for w, h in level) for level in model.anchors.tolist())
    variant = find_variant(config)
    if variant.neck is None:
        raise UserError(f"model.arch {config.arch} is a classifier; it detects no objects")
    return variant.anchors if config.anchors in (None, "auto", "published") else config.anchors


def build_classifier(config: ModelConfig, num_classes: int) -> Classifier:
    """The classifier that `model.arch` names, freshly initialised.

    Raises:
        UserError: an unknown name, a package that is not installed, or a key for other networks.
    """
    variant = find_variant(config)
    if config.backbone is not None:
        raise UserError(
            "model.backbone is for detectors; set model.arch to the backbone to train it as a classifier"
        )
    if variant.network is None:
        backbone, _, _ = _build_backbone(config, variant)
        return BackboneClassifier(
            backbone, num_classes=num_classes, orders=_find_orders(config, variant)
        )
    options = _collect_options(config, variant)
    if "small_images" in variant.accepts:
        options["own_eps"] = config.bn_eps is None
    act = build_activation(_choose_activation(config, "backbone"))
    return variant.network(num_classes=num_classes, act=act, norm=build_norm(config), **options)


def is_classifier(config: ModelConfig) -> bool:
    """Whether a config's network classifies images and detects no objects."""
    return config.darknet_cfg is None and find_variant(config).neck is None


def build_network(
    config: ModelConfig, num_classes: int, drop: DropBlock2d | None = None
) -> Detector | Classifier:
    """The detector or the classifier of a config, freshly initialised; arguments as for `build_model`.

    Raises:
        UserError: as `build_model`; DropBlock for a classifier, which has no neck; an unknown
            `model.init`.
    """
    if not is_classifier(config):
        model = build_model(config, num_classes, drop)
    elif drop is not None:
        raise UserError("bag.dropblock: a classifier has no neck to put DropBlock in; set it to 0")
    else:
        model = build_classifier(config, num_classes)
    if config.init != "default":
        initialise_weights(model, config.init)
    return model


def default_num_classes(config: ModelConfig) -> int:
    """The number of classes of a network's published weights, or the one that a darknet cfg states."""
    if config.darknet_cfg is not None:
        return count_cfg_classes(parse_cfg(config.darknet_cfg, config.arch))
    return IMAGENET_CLASSES if is_classifier(config) else len(COCO_NAMES)


def build_norm(config: ModelConfig) -> BatchNormSettings:
    """The settings of every BatchNorm; eps is the publisher's by default."""
    usual = DARKNET_EPS if config.darknet_cfg is not None else PYTORCH_EPS
    return BatchNormSettings(eps=config.bn_eps or usual, momentum=config.bn_momentum)


def find_variant(config: ModelConfig) -> Variant:
    """The row of the table that `model.arch` names.

    Raises:
        UserError: there is none; suggests the nearest name.
    """
    if config.arch not in VARIANTS:
        hint = nearest(config.arch, list(VARIANTS))
        raise UserError(f"unknown model.arch {config.arch!r}{hint} (known: {', '.join(VARIANTS)})")
    return VARIANTS[config.arch]


def find_backbone(config: ModelConfig) -> Variant:
    """The row of a detector's backbone: that of `model.backbone`, else its own.

    Raises:
        UserError: no such row, or one without the maps that the neck needs.
    """
    own = find_variant(config)
    if config.backbone is None:
        return own
    known = [name for name, row in VARIANTS.items() if _strides(row) == _strides(own)]
    if config.backbone not in known:
        hint = nearest(config.backbone, known)
        raise UserError(
            f"model.backbone {config.backbone!r}{hint}: expected a network with maps at the strides of "
            f"{config.arch}, {', '.join(map(str, _strides(own)))}: {', '.join(known)}"
        )
    return VARIANTS[config.backbone]


def _strides(variant: Variant) -> tuple[int, ...]:
    """Of a row's backbone; none without one."""
    bound = variant.backbone
    return getattr(bound.func if isinstance(bound, partial) else bound, "strides", ())


def _find_orders(config: ModelConfig, variant: Variant) -> tuple[str, ...]:
    """The orders of darknet files; none for a network that darknet has no file of."""
    return variant.orders if config.backbone is None and config.miwrc == "none" else ()


def _choose_activation(config: ModelConfig, part: str) -> str | ActivationConfig:
    """The activation of one part of the network."""
    spec = config.activation
    return getattr(spec, part) if isinstance(spec, PartActivations) else spec


def _build_backbone(
    config: ModelConfig, variant: Variant
) -> tuple[Any, Callable[[str], ActFactory], BatchNormSettings]:
    assert variant.backbone is not None, f"{config.arch} has no backbone of its own"
    norm = build_norm(config)

    def part_act(part: str) -> ActFactory:
        return build_activation(_choose_activation(config, part))

    if config.split_half == "first" and not variant.halves:
        raise UserError(
            f"model.split_half: {config.arch} splits no channels; only yolov4-tiny does"
        )
    options = _collect_options(config, variant)
    if variant.halves:
        options["first_half"] = config.split_half == "first"
    return variant.backbone(act=part_act("backbone"), norm=norm, **options), part_act, norm


def _collect_options(config: ModelConfig, variant: Variant) -> dict[str, Any]:
    """The keywords of the network's constructor that only some networks have, where they are set.

    Raises:
        UserError: a key that this network does not have is set.
    """
    options: dict[str, Any] = {}
    for key, off in NETWORK_KEYS.items():
        value = getattr(config, key)
        if value == off:
            continue
        if key not in variant.accepts:
            names = [name for name, row in VARIANTS.items() if key in row.accepts]
            raise UserError(
                f"model.{key}: {config.backbone or config.arch} has no such option; remove the key, or "
                f"choose a network that has it: {', '.join(names)}"
            )
        options[key] = value
    return options


def _build_darknet(config: ModelConfig, text: str, num_classes: int) -> DarknetNet:
    for key, off in {**NETWORK_KEYS, "backbone": None}.items():
        if getattr(config, key) != off:
            raise UserError(f"model.{key}: {config.arch} sets all layers; remove the key")
    model = DarknetNet(parse_cfg(text, config.arch), activation, build_norm(config))
    if model.num_classes != num_classes:
        raise UserError(
            f"{config.arch}: its [yolo] sections have classes={model.num_classes}, but the data has "
            f"{num_classes}; change classes= and the filters= before each [yolo]"
        )
    if config.decoder is not None:
        model.decoder = build_decoder(config.decoder, len(model.strides))
    return model


def build_dropblock(config: BagConfig) -> DropBlock2d | None:
    """DropBlock for the neck, if the bag has it."""
    if not config.dropblock:
        return None
    return DropBlock2d(
        block_size=config.dropblock_size, target=config.dropblock, ramp=config.dropblock_ramp
    )
