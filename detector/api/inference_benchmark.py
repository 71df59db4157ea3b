"""Time of an image through the network in PyTorch and in other runtimes, stage by stage.

All variants run in one process, in turn: a machine that slows down slows all of them.
"""

import copy
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.data import LoadedSample, Placement, collate, sample_without_labels
from detector.device import Hardware, cpu_has_bf16
from detector.errors import UserError
from detector.evaluation import StageTimer, predict
from detector.export import (
    ExportMetadata,
    ExportOptions,
    OnnxRuntime,
    open_exported,
    write_exported,
)
from detector.nn import fuse_batch_norms
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates

STAGES = ("images", "network", "boxes")
PYTORCH = ("eager", "fused", "channels_last", "bf16", "compile")
RUNTIMES = {"onnxruntime": "onnx", "openvino": "openvino"}  # -> format
VARIANTS = (*PYTORCH, *RUNTIMES)
REFERENCE = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a network.

    Attributes:
        name: as in `VARIANTS`, or the file given to compare with.
        model: what `predict` takes.
        hardware: device, precision and memory format.
        batches: the batch sizes that it can run.
    """

    name: str
    model: Any
    hardware: Hardware
    batches: tuple[int, ...]


@dataclass(slots=True)
class Timing:
    """Milliseconds per image of a variant at a batch size.

    Attributes:
        samples: by stage, one value per run: "images" (letterbox, collation, scaling), "network",
            "boxes" (decoding where the network does not, NMS).
    """

    variant: str
    batch: int
    samples: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def median(self, stage: str) -> float:
        """The median of a stage, ms per image."""
        return float(np.median(self.samples[stage]))

    @property
    def total(self) -> float:
        """All stages, ms per image."""
        return sum(self.median(stage) for stage in STAGES)

    def as_json(self) -> dict[str, Any]:
        """For a file that scripts read."""
        medians = {stage: self.median(stage) for stage in STAGES}
        return {"variant": self.variant, "batch": self.batch, "ms_per_image": medians}


def find_obstacle(name: str, device: torch.device) -> str | None:
    """Why a variant does not run, or is pointless, on this machine; None if nothing is in its way."""
    if name in RUNTIMES and importlib.util.find_spec(name) is None:
        return f"{name} is not installed: pip install 'detector[{RUNTIMES[name]}]'"
    if name == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        return "this CPU has no bf16 arithmetic, which makes it 10 times as slow as fp32"
    return None


def make_variants(
    names: Sequence[str],
    model: nn.Module,
    hardware: Hardware,
    metadata: ExportMetadata,
    *,
    batches: tuple[int, ...],
    folder: Path,
) -> list[Variant]:
    """Prepares a network in each way; exports it where the way is another runtime.

    Args:
        names: of `VARIANTS`.
        model: in evaluation mode, on the CPU; copied, not changed.
        hardware: the device, in fp32 and torch's default memory format.
        metadata: of the exported files.
        batches: batch sizes.
        folder: for the exported files.
    """
    last = replace(hardware, memory_format=torch.channels_last)
    fused = fuse_batch_norms(model)
    ways: dict[str, Callable[[], Variant]] = {
        "eager": lambda: _make_pytorch("eager", model, hardware, batches),
        "fused": lambda: _make_pytorch("fused", fused, hardware, batches),
        "channels_last": lambda: _make_pytorch("channels_last", fused, last, batches),
        "bf16": lambda: _make_pytorch("bf16", fused, replace(last, precision="bf16"), batches),
        "compile": lambda: _make_pytorch("compile", fused, last, batches),
        **{
            name: lambda name=name: _make_exported(name, model, hardware, metadata, batches, folder)
            for name in RUNTIMES
        },
    }
    return [ways[name]() for name in names]


def _make_pytorch(
    name: str, model: nn.Module, hardware: Hardware, batches: tuple[int, ...]
) -> Variant:
    placed = hardware.place(copy.deepcopy(model))
    if name == "compile":
        placed = torch.compile(placed)  # pyright: ignore
    return Variant(name, placed, hardware, batches)


def _make_exported(
    name: str,
    model: nn.Module,
    hardware: Hardware,
    metadata: ExportMetadata,
    batches: tuple[int, ...],
    folder: Path,
) -> Variant:
    path = folder / f"model{'.onnx' if name == 'onnxruntime' else '.xml'}"
    write_exported(model, path, metadata, ExportOptions(RUNTIMES[name]))
    return Variant(name, open_exported(path), hardware, batches)


class OtherModel(nn.Module):
    """An ONNX file of any project that takes images [B, 3, H, W]; only its network is timed.

    Attributes:
        strides: a stand-in, which `predict` wants.
        batch: the fixed batch size, or None.
    """

    strides = (1,)

    def __init__(self, path: Path, size: int) -> None:
        """
        Args:
            path: of the file.
            size: of the images, pixels.

        Raises:
            UserError: it cannot be loaded, or takes no images of this size.
        """
        super().__init__()
        self.runtime = OnnxRuntime(path, torch.get_num_threads())
        (first, *others) = self.runtime.session.get_inputs()
        shape = list(first.shape)
        sides = [side for side in shape[2:] if isinstance(side, int)]
        if others or len(shape) != 4 or shape[1] != 3 or any(side != size for side in sides):
            raise UserError(
                f"{path}: takes {first.name} {shape}; expected one input [batch, 3, {size}, {size}] "
                f"(--size sets the size)"
            )
        if first.type not in ("tensor(float)", "tensor(float16)"):
            raise UserError(f"{path}: takes {first.type}; expected float32 or float16 images")
        self.dtype = np.float16 if first.type == "tensor(float16)" else np.float32
        self.batch = shape[0] if isinstance(shape[0], int) else None

    def forward(self, images: Tensor) -> list[np.ndarray]:
        """Images float32 [B, 3, H, W] -> the file's outputs."""
        return self.runtime.run(images.contiguous().numpy().astype(self.dtype, copy=False))

    def find_candidates(self, outputs: object, conf: float) -> Candidates:
        """None: what the outputs mean is unknown."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return Candidates(nothing, torch.zeros(0, 4), torch.zeros(0), nothing)


def make_other(path: Path, size: int, hardware: Hardware, batches: tuple[int, ...]) -> Variant:
    """A variant that runs another ONNX file, at the batch sizes that it takes."""
    model = OtherModel(path, size)
    known = batches if model.batch is None else (model.batch,)
    return Variant(path.name, model, hardware, known)


def measure_variants(
    variants: Sequence[Variant],
    images: Sequence[np.ndarray],
    placement: Placement,
    postprocess: Postprocess,
    *,
    rounds: int,
    report: Callable[[str], None] = lambda line: None,
) -> list[Timing]:
    """Runs all variants in turn, `rounds` times after two rounds of warm-up.

    Args:
        variants: what to measure.
        images: uint8 [H, W, 3], RGB, decoded; used in turn.
        placement: how they are letterboxed.
        postprocess: confidence threshold and NMS.
        rounds: runs of each variant and batch size.
        report: called with a line of progress.
    """
    timings = {
        (each.name, batch): Timing(each.name, batch) for each in variants for batch in each.batches
    }
    for number in range(-2, rounds):
        report(f"round {max(number + 1, 0)} of {rounds}")
        for each in variants:
            for batch in each.batches:
                timer = StageTimer(each.hardware.device)
                batches = _make_batches(images, placement, batch)
                for _ in predict(
                    each.model, batches, postprocess, hardware=each.hardware, timer=timer
                ):
                    pass
                if number >= 0:
                    for stage in STAGES:
                        milliseconds = 1000 * timer.seconds[stage][0] / batch
                        timings[each.name, batch].samples[stage].append(milliseconds)
    return list(timings.values())


def _make_batches(
    images: Sequence[np.ndarray], placement: Placement, count: int
) -> Iterator[Batch]:
    """One batch, made when it is asked for: `predict` times it."""
    chosen = list(itertools.islice(itertools.cycle(images), count))
    _, shapes = placement.plan(np.array([image.shape[:2] for image in chosen]), count)
    yield collate(
        [
            LoadedSample(*placement.place(sample_without_labels(image), shape))
            for image, shape in zip(chosen, shapes, strict=True)
        ]
    )


def format_timings(timings: Sequence[Timing]) -> str:
    """A table, one row per variant and batch size; the last column compares the networks."""
    reference = {
        each.batch: each.median("network") for each in timings if each.variant == REFERENCE
    }
    lines = [
        "ms per image, medians",
        f"{'':20}{'batch':>6}{'images':>9}{'network':>9}{'boxes':>8}{'total':>9}"
        f"{'images+boxes':>14}{'network / ' + REFERENCE:>23}",
    ]
    for each in sorted(timings, key=lambda timing: timing.batch):
        images, network, boxes = (each.median(stage) for stage in STAGES)
        ratio = f"{network / reference[each.batch]:.2f}" if each.batch in reference else "-"
        share = f"{(images + boxes) / each.total:.1%}"
        lines.append(
            f"{each.variant:20}{each.batch:>6}{images:>9.2f}{network:>9.2f}{boxes:>8.2f}"
            f"{each.total:>9.2f}{share:>14}{ratio:>23}"
        )
    return "\n".join(lines)
