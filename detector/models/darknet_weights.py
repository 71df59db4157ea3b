"""Reads and writes darknet's `.weights` files.

A file is a header (three int32: major, minor, revision; then `seen`, the images trained on) and float32
numbers, little-endian: for each convolution, in the order of the cfg, either beta, gamma, running
mean, running variance and weight, or bias and weight. The file does not name its network: a reader
checks the exact file size, and that no running variance is negative.

A network can have two orders: `pacsp` stores each head after its map, `csp` stores all heads at the
end. The sizes are equal; read in the wrong order, about a tenth of the variances are negative.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detector.errors import UserError, reading, require_file
from detector.nn import ConvNormAct


class DarknetSerializable(Protocol):
    """A network that can be stored in a darknet weights file.

    Attributes:
        orders: names of the orders of its files, the usual one first; none if darknet has no such format.
    """

    orders: tuple[str, ...]

    def list_parts(self, order: str) -> Sequence[nn.Module]:
        """The parts in that order; each registers its convolutions in file order."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a weights file.

    Attributes:
        major, minor, revision: the version; 0, 2, 5 in current files.
        seen: images trained on; 64 bits from version 0.2 on, 32 before.
    """

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """Format string for `struct`."""
        return "<3iq" if self.major * 10 + self.minor >= 2 else "<3ii"

    def pack(self) -> bytes:
        """Encodes the header: 20 bytes, 16 before version 0.2."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)

    @classmethod
    def unpack(cls, data: bytes, source: str) -> "Header":
        """Decodes the header from a file's first bytes.

        Raises:
            UserError: too short, or not a version of darknet.
        """
        if len(data) >= 16:
            version = struct.unpack_from("<3i", data)
            if all(0 <= number < 1000 for number in version[:2]):
                layout = cls(*version).layout
                if len(data) >= struct.calcsize(layout):
                    return cls(*struct.unpack_from(layout, data))
        raise UserError(
            f"{source}: not a darknet weights file: expected a version number at its start"
        )


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What `load_darknet` loaded.

    Attributes:
        header: of the file.
        order: the order in which it was read.
        convolutions: number loaded, of `total`.
        tensors: the tensors of the model that were loaded.
    """

    header: Header
    order: str
    convolutions: int
    total: int
    tensors: list[Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and its BatchNorm; None where the convolution has a bias."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None

    def tensors(self) -> list[Tensor]:
        """The tensors in file order."""
        first: list[Tensor | None] = [self.conv.bias]
        if self.norm is not None:
            norm = self.norm
            first = [norm.bias, norm.weight, norm.running_mean, norm.running_var]
        return [tensor for tensor in (*first, self.conv.weight) if tensor is not None]

    @property
    def num_parameters(self) -> int:
        """How many of the stored numbers are parameters, not running statistics."""
        return sum(t.numel() for t in self.tensors() if isinstance(t, nn.Parameter))

    @property
    def size(self) -> int:
        """How many numbers the file stores for this layer."""
        return sum(tensor.numel() for tensor in self.tensors())


def list_layers(model: DarknetSerializable, order: str) -> list[Layer]:
    """Every convolution of a model, in file order."""
    return [layer for part in model.list_parts(order) for layer in _find_layers(part)]


def _find_layers(part: nn.Module) -> Iterator[Layer]:
    normed = set()
    for module in part.modules():
        if isinstance(module, ConvNormAct):
            assert isinstance(module.norm, nn.BatchNorm2d), (
                "a model with fused BatchNorms cannot be stored"
            )
            normed.add(module.conv)
            yield Layer(module.conv, module.norm)
        elif isinstance(module, nn.Conv2d) and module not in normed:
            yield Layer(module, None)


def usual_order(model: DarknetSerializable) -> str:
    """The first of `model.orders`.

    Raises:
        UserError: darknet's format is not defined for this network.
    """
    if not model.orders:
        raise UserError(
            "darknet has no format for the weights of this network; they are kept as a .pt file"
        )
    return model.orders[0]


def file_size(model: DarknetSerializable, header: Header | None = None) -> int:
    """Bytes of a complete weights file of this model."""
    layers = list_layers(model, usual_order(model))
    return len((header or Header()).pack()) + 4 * sum(layer.size for layer in layers)


def read_header(path: Path) -> Header:
    """Reads the header of a file.

    Raises:
        UserError: no such file, or not a darknet weights file.
    """
    require_file(path)
    with reading(path), path.open("rb") as file:
        return Header.unpack(file.read(20), str(path))


def load_darknet(
    model: DarknetSerializable, path: Path, *, order: str | None = None, partial: bool = False
) -> LoadResult:
    """Loads a file into a model; on an error the model is unchanged.

    Args:
        model: of the same architecture and class count as the file.
        path: of the file.
        order: one of `model.orders`; None detects it from the running variances.
        partial: accept a file that ends after any convolution; the other layers keep their values.

    Raises:
        UserError: missing, not a darknet weights file, too short, too long, or of another network.
    """
    header = read_header(path)
    start, size = len(header.pack()), path.stat().st_size
    if order is not None and order not in model.orders:
        raise UserError(
            f"{path}: this network has no order {order!r} (known: {', '.join(model.orders)})"
        )
    expected = file_size(model, header)
    if (size != expected and not partial) or size > expected:
        problem = "too long" if size > expected else "truncated, or of another network"
        raise UserError(f"{path}: {problem}: {size:,} bytes, expected {expected:,}")
    count = (size - start) // 4
    values = np.fromfile(path, "<f4", count=count, offset=start)
    if len(values) * 4 != size - start:
        raise UserError(f"{path}: truncated: byte {size:,} is in the middle of a number")
    chosen, layers = _detect_order(model, values, order, path)
    position = 0
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.tensors():
                part = values[position : position + tensor.numel()]
                tensor.copy_(torch.from_numpy(part).view_as(tensor))
                position += tensor.numel()
    total = len(list_layers(model, chosen))
    filled = [tensor for layer in layers for tensor in layer.tensors()]
    return LoadResult(header, chosen, len(layers), total, filled)


def _detect_order(
    model: DarknetSerializable, values: np.ndarray, order: str | None, path: Path
) -> tuple[str, list[Layer]]:
    """The order in which all running variances are valid, and the layers that the numbers fill."""
    clean: dict[str, list[Layer]] = {}
    faults = []
    for name in [order] if order else model.orders:
        layers, left = _match_prefix(list_layers(model, name), len(values))
        bad, variances = _count_negative_variances(layers, values)
        if left:
            faults.append(f"{name}: ends {left:,} numbers into convolution {len(layers)}")
        elif bad:
            faults.append(f"{name}: {bad:,} of {variances:,} running variances are negative")
        else:
            clean[name] = layers
    if not clean:
        raise UserError(
            f"{path}: weights of another network, or a damaged file ({'; '.join(faults)})"
        )
    first, *others = clean
    for other in others:
        same = [layer.conv for layer in clean[first]] == [layer.conv for layer in clean[other]]
        if not same:
            raise UserError(
                f"{path}: valid in the orders {' and '.join(clean)}; choose one with --order"
            )
    return first, clean[first]


def _match_prefix(layers: list[Layer], count: int) -> tuple[list[Layer], int]:
    """The layers that the first `count` numbers fill, and the number of numbers left over."""
    kept = []
    for layer in layers:
        if count < layer.size:
            break
        kept.append(layer)
        count -= layer.size
    return kept, count


def _count_negative_variances(layers: list[Layer], values: np.ndarray) -> tuple[int, int]:
    """How many running variances are negative or NaN, and how many there are in all."""
    bad = total = position = 0
    for layer in layers:
        if layer.norm is not None:
            channels = layer.conv.out_channels
            start = position + 3 * channels
            bad += int((~(values[start : start + channels] >= 0)).sum())
            total += channels
        position += layer.size
    return bad, total


def save_darknet(
    model: DarknetSerializable,
    path: Path,
    *,
    header: Header | None = None,
    order: str | None = None,
) -> None:
    """Writes a model as a darknet weights file; replaces an existing file atomically.

    Args:
        model: with its BatchNorms (not fused).
        path: of the file; its folder exists.
        header: version 0.2.5 and seen 0 by default.
        order: one of `model.orders`; the first by default.

    Raises:
        UserError: no such order, or activations with learned parameters.
    """
    order = order or usual_order(model)
    if order not in model.orders:
        raise UserError(
            f"{path}: this network has no order {order!r} (known: {', '.join(model.orders)})"
        )
    layers = list_layers(model, order)
    stored = sum(layer.num_parameters for layer in layers)
    total = sum(p.numel() for part in model.list_parts(order) for p in part.parameters())
    if stored != total:
        raise UserError(
            f"{path}: not written: the activations of this network have {total - stored:,} learned "
            f"parameters, which the darknet format cannot store; use an activation without parameters"
        )
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write((header or Header()).pack())
        for layer in layers:
            for tensor in layer.tensors():
                file.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
