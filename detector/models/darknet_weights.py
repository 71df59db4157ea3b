"""Darknet's `.weights` files, in and out.

A file is a header (three int32: major, minor, revision; then `seen`, the images trained on) and float32
numbers, little-endian: for each convolution, in the order of the cfg, either beta, gamma, running
mean, running variance and weight, or bias and weight. Nothing in it names the network, so everything is
checked: the exact end of the file, and that no running variance is negative.

One network can have two orders: `pacsp` stores each head after its map, `csp` stores the heads at the
end. Both have one size; read in the wrong one, about a tenth of the variances come out negative.
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

from detector.errors import UserError
from detector.nn import ConvNormAct


class Stored(Protocol):
    """A network that knows how darknet stores it.

    Attributes:
        orders: names of the orders in which files of it exist, the usual one first.
    """

    orders: tuple[str, ...]

    def stored(self, order: str) -> Sequence[nn.Module]:
        """The parts in that order; each registers its convolutions as they are stored."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """What a file starts with.

    Attributes:
        major, minor, revision: the version; 0, 2, 5 in today's files.
        seen: images trained on; 64 bits from version 0.2 on, 32 before.
    """

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """For `struct`."""
        return "<3iq" if self.major * 10 + self.minor >= 2 else "<3ii"

    def pack(self) -> bytes:
        """The header's bytes: 20, or 16 for old versions."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)

    @classmethod
    def unpack(cls, data: bytes, source: str) -> "Header":
        """The header that a file's first bytes hold.

        Raises:
            UserError: too short, or no version of darknet's.
        """
        if len(data) >= 16:
            version = struct.unpack_from("<3i", data)
            if all(0 <= number < 1000 for number in version[:2]):
                layout = cls(*version).layout
                if len(data) >= struct.calcsize(layout):
                    return cls(*struct.unpack_from(layout, data))
        raise UserError(f"{source}: not a darknet weights file: it does not start with a version")


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file brought.

    Attributes:
        header: the file's.
        order: the order in which it was read.
        convolutions: how many were loaded, of `total`.
        tensors: the model's own tensors that were filled.
    """

    header: Header
    order: str
    convolutions: int
    total: int
    tensors: list[Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and its BatchNorm, or None where it has a bias."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None

    def tensors(self) -> list[Tensor]:
        """As stored."""
        first: list[Tensor | None] = [self.conv.bias]
        if self.norm is not None:
            norm = self.norm
            first = [norm.bias, norm.weight, norm.running_mean, norm.running_var]
        return [tensor for tensor in (*first, self.conv.weight) if tensor is not None]

    @property
    def learned(self) -> int:
        """Numbers stored that are learned: all but the running statistics."""
        return sum(t.numel() for t in self.tensors() if isinstance(t, nn.Parameter))

    @property
    def size(self) -> int:
        """Numbers stored."""
        return sum(tensor.numel() for tensor in self.tensors())


def stored_layers(model: Stored, order: str) -> list[Layer]:
    """Every convolution of a model, in the order of its files."""
    return [layer for part in model.stored(order) for layer in _layers(part)]


def _layers(part: nn.Module) -> Iterator[Layer]:
    normed = set()
    for module in part.modules():
        if isinstance(module, ConvNormAct):
            assert isinstance(module.norm, nn.BatchNorm2d), "a fused model cannot be stored"
            normed.add(module.conv)
            yield Layer(module.conv, module.norm)
        elif isinstance(module, nn.Conv2d) and module not in normed:
            yield Layer(module, None)


def file_size(model: Stored, header: Header | None = None) -> int:
    """Bytes of a whole file of this model."""
    layers = stored_layers(model, model.orders[0])
    return len((header or Header()).pack()) + 4 * sum(layer.size for layer in layers)


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises:
        UserError: no such file, or not darknet's.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as file:
        return Header.unpack(file.read(20), str(path))


def load_darknet(
    model: Stored, path: Path, *, order: str | None = None, partial: bool = False
) -> Imported:
    """Loads a file into a model, all of it or nothing.

    Args:
        model: of the file's network, class count included.
        path: of the file.
        order: one of `model.orders`; None tells them apart by their running variances.
        partial: the file may end at the end of any convolution; the rest of the model stays as it is.

    Raises:
        UserError: missing, not darknet's, too short, too long, or of another network.
    """
    header = read_header(path)
    start, size = len(header.pack()), path.stat().st_size
    if order is not None and order not in model.orders:
        raise UserError(
            f"{path}: there is no order {order!r} for this network (known: {', '.join(model.orders)})"
        )
    expected = file_size(model, header)
    if (size != expected and not partial) or size > expected:
        problem = "too long" if size > expected else "truncated, or of another network"
        raise UserError(f"{path}: {problem}: {size:,} bytes, this network has {expected:,}")
    count = (size - start) // 4
    values = np.fromfile(path, "<f4", count=count, offset=start)
    if len(values) * 4 != size - start:
        raise UserError(f"{path}: truncated: it ends within a number, at byte {size:,}")
    chosen, layers = _choose(model, values, order, path)
    position = 0
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.tensors():
                part = values[position : position + tensor.numel()]
                tensor.copy_(torch.from_numpy(part).view_as(tensor))
                position += tensor.numel()
    total = len(stored_layers(model, chosen))
    filled = [tensor for layer in layers for tensor in layer.tensors()]
    return Imported(header, chosen, len(layers), total, filled)


def _choose(
    model: Stored, values: np.ndarray, order: str | None, path: Path
) -> tuple[str, list[Layer]]:
    """The one order in which the numbers make sense, and the layers that they fill."""
    clean: dict[str, list[Layer]] = {}
    faults = []
    for name in [order] if order else model.orders:
        layers, left = _prefix(stored_layers(model, name), len(values))
        bad, variances = _negative_variances(layers, values)
        if left:
            faults.append(f"{name}: ends {left:,} numbers into convolution {len(layers)}")
        elif bad:
            faults.append(f"{name}: {bad:,} of {variances:,} running variances are negative")
        else:
            clean[name] = layers
    if not clean:
        raise UserError(f"{path}: weights of another network, or damaged ({'; '.join(faults)})")
    first, *others = clean
    for other in others:
        same = [layer.conv for layer in clean[first]] == [layer.conv for layer in clean[other]]
        if not same:
            raise UserError(
                f"{path}: makes sense in the orders {' and '.join(clean)}; say which: --order"
            )
    return first, clean[first]


def _prefix(layers: list[Layer], count: int) -> tuple[list[Layer], int]:
    """The layers that the first `count` numbers fill, and how many numbers are left over."""
    kept = []
    for layer in layers:
        if count < layer.size:
            break
        kept.append(layer)
        count -= layer.size
    return kept, count


def _negative_variances(layers: list[Layer], values: np.ndarray) -> tuple[int, int]:
    """How many running variances are negative or not numbers, and how many there are."""
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
    model: Stored, path: Path, *, header: Header | None = None, order: str | None = None
) -> None:
    """Writes a model as darknet's file; the old file stays whole until the new one is on the disk.

    Args:
        model: not fused.
        path: of the file; its folder exists.
        header: the first bytes; version 0.2.5 and nothing seen, unless said.
        order: one of `model.orders`; the first unless said.

    Raises:
        UserError: no such order.
    """
    order = order or model.orders[0]
    if order not in model.orders:
        raise UserError(f"there is no order {order!r} (known: {', '.join(model.orders)})")
    layers = stored_layers(model, order)
    held = sum(layer.learned for layer in layers)
    total = sum(p.numel() for part in model.stored(order) for p in part.parameters())
    if held != total:
        raise UserError(
            f"{path}: not written: the network learns {total - held:,} numbers in its activations, for "
            f"which darknet's files have no place"
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
