"""Builds a network from a darknet `.cfg`, from the same modules as the other networks.

Layers are numbered as in darknet: the first section after [net] is 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from detector.decode import Decoder, decode
from detector.models.darknet_cfg import Section, count_cfg_classes
from detector.models.head import init_output_bias, split_anchors
from detector.nn import ActFactory, BatchNormSettings, ConvNormAct
from detector.structures import Candidates

ACTIVATION_NAMES = {"leaky": "leaky_relu", "linear": "identity"}  # darknet's -> the registry's
MOST_WEIGHTS = (
    500_000_000  # of a layer: 2 GB; darknet's largest published networks have less in all
)
ACTIVATIONS = ("leaky", "mish", "swish", "relu", "linear", "logistic")


class Concat(nn.Module):
    """[route]: concatenates maps along the channels; takes only part `group` of `groups` of each."""

    def __init__(self, groups: int, group: int) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps [B, c, H, W] -> [B, sum of c / groups, H, W]."""
        parts = [m.chunk(self.groups, 1)[self.group] if self.groups > 1 else m for m in maps]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class Sum(nn.Module):
    """[shortcut]: adds maps, then applies an activation."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps of one shape -> their sum."""
        return self.act(sum(maps[1:], maps[0]))


class MaxPool(nn.Module):
    """[maxpool]: `padding` pixels in total, the smaller half on the left and top, filled with -inf."""

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.before, self.after = padding // 2, padding - padding // 2

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, c, H', W']."""
        if self.before or self.after:
            x = pad(x, (self.before, self.after) * 2, value=float("-inf"))
        return max_pool2d(x, self.size, self.stride)


@dataclass(frozen=True, slots=True)
class _Map:
    """The output of a layer while building: its channels, and its stride in pixels."""

    channels: int
    stride: Fraction


@dataclass(frozen=True, slots=True)
class _Output:
    """A [yolo] section: the layer whose map it reads, and how to decode it."""

    layer: int
    stride: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_x_y: float
    new_coords: bool
    section: Section


class DarknetNet(nn.Module):
    """A detector described by a .cfg, with the interface of `YOLO`.

    Attributes:
        anchors: float32 [levels, anchors, 2], pixels.
        strides: pixels per cell, by level, finest first.
        decoder: how the raw values become boxes.
        num_classes: of the cfg.
        orders: only "darknet", the order of the cfg.
    """

    anchors: Tensor
    orders: tuple[str, ...] = ("darknet",)

    def __init__(
        self,
        sections: Sequence[Section],
        activation: Callable[[str], ActFactory],
        norm: BatchNormSettings,
    ) -> None:
        """Builds the graph.

        Args:
            sections: from `parse_cfg`.
            activation: maps a registered name to its factory.
            norm: of every batch-normalised convolution.

        Raises:
            UserError: sections that do not fit together; the message has the line.
        """
        super().__init__()
        net, *rest = sections
        builder = _Builder(rest, activation, norm, net.whole("channels", "3", least=1))
        self.num_classes = count_cfg_classes([*sections])
        self.layers, self._inputs = builder.layers, builder.inputs
        outputs = sorted(builder.outputs, key=lambda output: output.stride)
        _check_outputs_agree(outputs)
        self._outputs = [output.layer for output in outputs]
        self._last_use = {i: n for n, inputs in enumerate(self._inputs) for i in inputs}
        self.strides = tuple(output.stride for output in outputs)
        self.decoder = Decoder(
            "sigmoid" if outputs[0].new_coords else "exp",
            tuple(output.scale_x_y for output in outputs),
        )
        self.register_buffer("anchors", torch.tensor([output.anchors for output in outputs]))
        for output in outputs:
            conv = next(m for m in self.layers[output.layer].modules() if isinstance(m, nn.Conv2d))
            init_output_bias(conv, len(output.anchors), output.stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> raw values [B, A, H/s, W/s, 5 + classes], finest first."""
        maps: dict[int, Tensor] = {-1: images}
        for number, (layer, inputs) in enumerate(zip(self.layers, self._inputs, strict=True)):
            maps[number] = layer(*(maps[i] for i in inputs))
            for i in set(inputs):
                if self._last_use[i] == number and i not in self._outputs:
                    del maps[i]
        return [split_anchors(maps[number], self.anchors.shape[1]) for number in self._outputs]

    def find_candidates(self, raw: Sequence[Tensor], conf: float) -> Candidates:
        """Decodes the raw maps of `forward`: every (box, class) whose score is above `conf`."""
        return decode(raw, self.anchors, self.strides, self.decoder, conf=conf)

    def list_parts(self, order: str) -> list[nn.Module]:
        """All layers, in the order of the cfg."""
        return [self.layers]


def _check_outputs_agree(outputs: list[_Output]) -> None:
    """Raises a UserError where [yolo] sections differ in what must be equal on all levels."""
    first = outputs[0]
    for other in outputs[1:]:
        for what in ("classes", "new_coords"):
            if getattr(other, what) != getattr(first, what):
                other.section.fail(f"{what} differs from the [yolo] in line {first.section.line}")
        if len(other.anchors) != len(first.anchors):
            other.section.fail(
                f"{len(other.anchors)} anchors, but the [yolo] in line {first.section.line} has "
                f"{len(first.anchors)}: not supported"
            )


class _Builder:
    """Builds layers, their inputs and the outputs, section by section."""

    def __init__(
        self,
        sections: Sequence[Section],
        activation: Callable[[str], ActFactory],
        norm: BatchNormSettings,
        channels: int,
    ) -> None:
        self.sections, self.activation, self.norm = sections, activation, norm
        self.layers = nn.ModuleList()
        self.inputs: list[tuple[int, ...]] = []
        self.outputs: list[_Output] = []
        self.maps: dict[int, _Map] = {-1: _Map(channels, Fraction(1))}
        for number, section in enumerate(sections):
            layer, inputs, result = getattr(self, f"_{section.kind}")(number, section)
            self.layers.append(layer)
            self.inputs.append(inputs)
            self.maps[number] = result

    def _act(self, section: Section, channels: int, default: str = "linear") -> nn.Module:
        name = section.options.get("activation", default)
        if name not in ACTIVATIONS:
            section.fail(f"activation={name} is not supported (known: {', '.join(ACTIVATIONS)})")
        if name == "logistic":
            return nn.Sigmoid()
        return self.activation(ACTIVATION_NAMES.get(name, name))(channels)

    def _sources(self, number: int, section: Section, key: str) -> tuple[int, ...]:
        """Layer numbers of an option; negative ones are relative to this layer."""
        sources = []
        for value in section.wholes(key):
            layer = value if value >= 0 else number + value
            if not 0 <= layer < number:
                section.fail(f"{key}={value}: no such layer before layer {number}")
            sources.append(layer)
        if not sources:
            section.fail(f"{key}= is empty")
        return tuple(sources)

    def _convolutional(self, number: int, section: Section):
        source = self.maps[number - 1]
        size = section.whole("size", "1", least=1)
        stride = section.whole("stride", "1", least=1)
        filters, groups = (
            section.whole("filters", "1", least=1),
            section.whole("groups", "1", least=1),
        )
        if source.channels % groups or filters % groups:
            section.fail(
                f"groups={groups} does not divide {source.channels} input and {filters} output channels"
            )
        weights = source.channels // groups * filters * size**2
        if weights > MOST_WEIGHTS:
            section.fail(
                f"filters={filters}, size={size} and {source.channels} input channels make "
                f"{weights:,} weights; expected at most {MOST_WEIGHTS:,}"
            )
        padding = size // 2 if section.whole("pad", "0") else section.whole("padding", "0")
        result = _Map(filters, source.stride * stride)
        before_yolo = number + 1 < len(self.sections) and self.sections[number + 1].kind == "yolo"
        if section.whole("batch_normalize", "0") and not before_yolo:
            layer: nn.Module = ConvNormAct(
                source.channels,
                filters,
                size,
                stride,
                padding=padding,
                groups=groups,
                act=lambda channels: self._act(section, channels, "logistic"),
                norm=self.norm,
            )
            return layer, (number - 1,), result
        conv = nn.Conv2d(source.channels, filters, size, stride, padding, groups=groups)
        if before_yolo:  # raw values: the decoder applies the sigmoid
            return conv, (number - 1,), result
        act = self._act(section, filters, "logistic")
        return nn.Sequential(conv, act), (number - 1,), result

    def _shortcut(self, number: int, section: Section):
        sources = (number - 1, *self._sources(number, section, "from"))
        first = self.maps[sources[0]]
        for other in sources[1:]:
            if self.maps[other] != first:
                section.fail(
                    f"adds layer {other} ({_describe(self.maps[other])}) to {_describe(first)}: "
                    f"only equal shapes are supported"
                )
        return Sum(self._act(section, first.channels)), sources, first

    def _route(self, number: int, section: Section):
        sources = self._sources(number, section, "layers")
        groups, group = section.whole("groups", "1", least=1), section.whole("group_id", "0")
        maps = [self.maps[source] for source in sources]
        if len({each.stride for each in maps}) > 1:
            section.fail(f"concatenates maps of different sizes: {', '.join(map(_describe, maps))}")
        if group >= groups or any(each.channels % groups for each in maps):
            section.fail(
                f"group_id={group}: no such part of groups={groups}, or it does not divide the channels"
            )
        channels = sum(each.channels // groups for each in maps)
        return Concat(groups, group), sources, _Map(channels, maps[0].stride)

    def _maxpool(self, number: int, section: Section):
        source = self.maps[number - 1]
        stride = section.whole("stride", "1", least=1)
        size = section.whole("size", str(stride), least=1)
        padding = section.whole("padding", str(size - 1))
        result = _Map(source.channels, source.stride * stride)
        return MaxPool(size, stride, padding), (number - 1,), result

    def _upsample(self, number: int, section: Section):
        source = self.maps[number - 1]
        factor = section.whole("stride", "2", least=1)
        result = _Map(source.channels, source.stride / factor)
        return nn.Upsample(scale_factor=factor, mode="nearest"), (number - 1,), result

    def _dropout(self, number: int, section: Section):
        probability = section.number("probability", "0.5")
        if not 0 <= probability < 1:
            section.fail(f"probability={probability:g}: expected at least 0 and less than 1")
        return nn.Dropout(probability), (number - 1,), self.maps[number - 1]

    def _yolo(self, number: int, section: Section):
        before, source = self.sections[number - 1], self.maps[number - 1]
        if number == 0 or before.kind != "convolutional":
            section.fail("must follow a [convolutional] section")
        new_coords = bool(section.whole("new_coords", "0"))
        expected = "logistic" if new_coords else "linear"
        if (
            before.options.get("activation") != expected
            or before.options.get("batch_normalize", "0") != "0"
        ):
            section.fail(
                f"new_coords={int(new_coords)} needs activation={expected} without batch_normalize in "
                f"the [convolutional] in line {before.line}"
            )
        sizes = section.numbers("anchors")
        pairs = list(zip(sizes[::2], sizes[1::2], strict=False))
        masks = section.wholes("mask", ",".join(map(str, range(len(pairs)))))
        classes = section.whole("classes", "20", least=1)
        if not all(value > 0 for value in sizes):
            section.fail(f"anchors={section.options['anchors']}: expected sizes above 0 px")
        if len(sizes) % 2 or not masks or not all(0 <= mask < len(pairs) for mask in masks):
            section.fail(f"mask={section.options.get('mask')} does not fit {len(pairs)} anchors")
        if source.channels != len(masks) * (5 + classes):
            section.fail(
                f"classes={classes} and {len(masks)} anchors need filters={len(masks) * (5 + classes)} "
                f"in the [convolutional] in line {before.line}, which has {source.channels}"
            )
        anchors = tuple(pairs[mask] for mask in masks)
        scale = section.number("scale_x_y", "1")
        if source.stride.denominator != 1 or scale < 1:
            section.fail(f"scale_x_y={scale:g}, stride {source.stride}: not supported")
        self.outputs.append(
            _Output(number - 1, int(source.stride), anchors, classes, scale, new_coords, section)
        )
        return nn.Identity(), (number - 1,), source


def _describe(each: _Map) -> str:
    return f"{each.channels} channels, stride {each.stride}"
