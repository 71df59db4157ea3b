"""Where the time of a training step goes, and how long the same step takes when it is computed otherwise.

A variant is the run of a config with other settings or with torch's own layers in place of ours. The
variants take turns, one step each, in one process, so that a slow moment of the machine meets them all.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.api.convolution_floor import Convolutions
from detector.api.kept_memory import measure_kept_memory
from detector.build import (
    build_data,
    build_hardware,
    build_run_evaluator,
    build_trainer,
    resolve_config,
)
from detector.config import load_config
from detector.device import Hardware
from detector.distributed import ProcessGroup
from detector.engine import MicroBatch, Trainer
from detector.engine.cuda_graphs import SEEN_BEFORE
from detector.errors import UserError
from detector.nn import BatchNormAct2d, Conv2d, Mish
from detector.structures import Batch

# In the order of a step. checks: norm of the gradient, non-finite values, clipping.
PHASES = ("data", "transfer", "forward", "loss", "backward", "checks", "optimizer", "ema")
MAX_OVERFLOWS = 16  # steps that fp16 may skip at the start
Clock = Callable[[], float]  # seconds
Activations = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Variant:
    """How a step is computed.

    Attributes:
        words: config settings, `key=value`.
        activate: in place of our layers: `nn.Conv2d`, `nn.BatchNorm2d`, and this function of the
            activation module and its input. None keeps ours.
    """

    words: tuple[str, ...] = ()
    activate: Activations | None = None


def _apply_torchs(act: nn.Module, x: Tensor) -> Tensor:
    """torch's own Mish; other activations are torch's already."""
    return functional.mish(x) if isinstance(act, Mish) else act(x)


def _apply_composed(act: nn.Module, x: Tensor) -> Tensor:
    """Mish as the three operators of its formula."""
    return x * torch.tanh(functional.softplus(x)) if isinstance(act, Mish) else act(x)


VARIANTS = {
    "ours": Variant(),
    "eager": Variant(("train.capture=false",)),
    "torch": Variant(("train.capture=false",), _apply_torchs),
    "torch-bf16": Variant(("train.capture=false", "train.precision=bf16"), _apply_torchs),
    # as one writes it without thinking of speed
    "plain": Variant(
        ("train.precision=fp32", "train.channels_last=false", "train.capture=false"),
        _apply_composed,
    ),
    "nchw": Variant(("train.channels_last=false",)),
    "fp32": Variant(("train.precision=fp32",)),
    "bf16": Variant(("train.precision=bf16",)),
    "fp16": Variant(("train.precision=fp16",)),
    "checkpointing": Variant(("train.activation_checkpointing=true",)),
    "compile": Variant(("train.compile=true",)),
}


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What is trained.

    Attributes:
        cfg, data: config and data YAML; None: the config's.
        words: config settings, `key=value`.
        size: of the images, pixels.
        batch_size: images per step.
        clock: `time.process_time` counts the time of the CPU alone, of all threads, which other programs
            on the machine change less.
    """

    cfg: str
    data: str | None
    words: tuple[str, ...]
    size: int
    batch_size: int
    clock: Clock = time.perf_counter


@dataclass(slots=True)
class StepTimes:
    """Milliseconds of a variant's steps.

    Attributes:
        phases: of `PHASES`, one value per measured step.
        total: from batch to batch; on a GPU of steps that were not stopped between phases.
        busy: fraction of `total` in which the GPU computed; None on a CPU.
        convolutions: forward and backward pass of the convolutions alone, same precision and layout.
        peak_memory: bytes; 0 on a CPU, where it is that of all variants.
        kept: bytes that are kept for the backward pass, by the operator that keeps them.
    """

    hardware: str
    phases: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PHASES})
    total: list[float] = field(default_factory=list)
    convolutions: list[float] = field(default_factory=list)
    busy: float | None = None
    peak_memory: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    def median(self, phase: str) -> float:
        """Median milliseconds of a phase."""
        return statistics.median(self.phases[phase])

    def summary(self) -> dict[str, Any]:
        """Medians in ms, for JSON."""
        return {
            "hardware": self.hardware,
            "ms": statistics.median(self.total),
            "phases_ms": {name: self.median(name) for name in PHASES},
            "convolutions_ms": statistics.median(self.convolutions),
            "busy": self.busy,
            "peak_memory": self.peak_memory,
            "kept_for_backward": self.kept,
        }


class _TorchBatchNormAct(BatchNormAct2d):
    """`nn.BatchNorm2d` and an activation, called as `BatchNormAct2d`."""

    activate: Activations

    def forward(self, input: Tensor, act: nn.Module | None = None) -> Tensor:
        x = nn.BatchNorm2d.forward(self, input)
        return x if act is None else self.activate(act, x)


def use_torchs_layers(model: nn.Module, activate: Activations) -> None:
    """Makes a model compute with `nn.Conv2d`, `nn.BatchNorm2d` and `activate` in place of our layers."""
    kind = type("TorchBatchNormAct", (_TorchBatchNormAct,), {"activate": staticmethod(activate)})
    for module in model.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = kind
        elif isinstance(module, Conv2d):
            module.__class__ = nn.Conv2d  # pyright: ignore[reportAttributeAccessIssue]


class StepTimer:
    """Trains with one variant, step by step, and measures the phases.

    Attributes:
        times: the measurements.
        trainer: the run.
        config: of it. num_classes: of its data set.
    """

    def __init__(self, variant: Variant, settings: StepSettings) -> None:
        """
        Raises:
            UserError: the config, the data or the device cannot be used.
        """
        self._others_memory = _reset_memory()
        words = [*settings.words, *_fixed_words(settings), *variant.words]
        config = load_config(settings.cfg, words, data=settings.data)
        hardware, group = build_hardware(config), ProcessGroup()
        config, data, _ = resolve_config(config, build_data(config), hardware, group)
        evaluator = build_run_evaluator(config, data.val, hardware)
        self.config, self.num_classes = config, len(data.names)
        self.trainer = build_trainer(config, data, evaluator, hardware)
        if variant.activate is not None:
            use_torchs_layers(self.trainer.model, variant.activate)
        self.times = StepTimes(str(hardware))
        self._clock = settings.clock
        self._batches = _repeat(self.trainer)
        self._position = 0
        self._marks: list[float] = []
        self._stops = False  # whether the GPU is waited for at each mark
        self._watch()
        self.trainer.model.train()

    @property
    def hardware(self) -> Hardware:
        """Where it trains."""
        return self.trainer.hardware

    def measure(self) -> None:
        """One step with the times of its phases and, on a GPU, one that runs freely."""
        self._stops = True
        seconds = self._run_step()
        if not self._is_whole(seconds):
            raise UserError("a step was non-finite, or memory ran out: there is nothing to time")
        for name, value in zip(PHASES, seconds, strict=True):
            self.times.phases[name].append(1e3 * value)
        if self.hardware.device.type == "cuda":
            self._stops = False
            self._synchronize()
            start = self._clock()
            self._run_step()
            self._synchronize()
            self.times.total.append(1e3 * (self._clock() - start))
        else:
            self.times.total.append(1e3 * sum(seconds))

    def warm_up(self, steps: int) -> None:
        """Whole steps that are not measured; then their peak memory on a GPU.

        The first steps of fp16 are skipped until the loss scale is small enough.
        """
        for _ in range(steps + MAX_OVERFLOWS):
            steps -= self._is_whole(self._run_step())
            if not steps:
                break
        if self.hardware.device.type == "cuda":
            self._synchronize()
            self.times.peak_memory = self.hardware.peak_memory() - self._others_memory

    def measure_busy(self, steps: int) -> None:
        """The fraction of the time in which the GPU computes, by torch's profiler."""
        if self.hardware.device.type != "cuda":
            return
        self._stops = False
        self._synchronize()
        kinds = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as profile:
            for _ in range(steps):
                self._run_step()
            self._synchronize()
        device_us = sum(each.self_device_time_total for each in profile.key_averages())
        # against steps without the profiler, which slows the host down
        self.times.busy = device_us / steps / 1e3 / statistics.median(self.times.total)

    def next_batch(self) -> Batch:
        """The next training batch, on the host."""
        return next(self._batches)

    def _run_step(self) -> list[float]:
        trainer, self._marks = self.trainer, []
        self._mark()
        batch = self.next_batch()
        self._mark()
        new = MicroBatch.gather(batch, self._position, trainer.process_group)
        settings = trainer.schedule.settings_at(self._position)
        trainer.step.run([new], settings, trainer.progress, due=True)
        self._mark()
        self._position += 1
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]

    @staticmethod
    def _is_whole(seconds: Sequence[float]) -> bool:
        """Whether a step had all phases: it was finite, and memory sufficed."""
        return len(seconds) == len(PHASES)

    def _watch(self) -> None:
        """Marks the ends of the phases within a step."""
        step = self.trainer.step
        assert isinstance(step.criterion, nn.Module)
        run_network = step.run_network

        def mark_network(images: Tensor) -> Sequence[Tensor]:
            self._mark()
            raw = run_network(images)
            self._mark()
            return raw

        step.run_network = mark_network
        step.criterion.register_forward_hook(lambda *_: self._mark())
        on_gradients = step.on_gradients

        def note_gradients() -> None:
            self._mark()
            on_gradients()

        step.on_gradients = note_gradients
        step.optimizer.register_step_pre_hook(lambda *_: self._mark())
        step.optimizer.register_step_post_hook(lambda *_: self._mark())

    def _mark(self) -> None:
        if self._stops:
            self._synchronize()
        self._marks.append(self._clock())

    def _synchronize(self) -> None:
        synchronise(self.hardware)


StepMaker = Callable[[StepTimer], Callable[[], object]]


def synchronise(hardware: Hardware) -> None:
    """Waits for a GPU."""
    if hardware.device.type == "cuda":
        torch.cuda.synchronize()


def benchmark_steps(
    names: Sequence[str],
    settings: StepSettings,
    *,
    rounds: int,
    others: Mapping[str, StepMaker] | None = None,
    memory: bool = False,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[dict[str, StepTimes], dict[str, list[float]]]:
    """Times the variants in turns.

    Args:
        names: of `VARIANTS`.
        settings: what is trained.
        rounds: measured steps of each variant.
        others: by name, what makes the step of another toolkit, to be timed in the same rounds, from the
            timer of the first variant.
        memory: also measure what is kept for the backward pass.
        progress: wraps the rounds.

    Returns:
        The times of each variant, and the milliseconds of each of the others.
    """
    timers: dict[str, StepTimer] = {}
    for name in names:
        timers[name] = StepTimer(VARIANTS[name], settings)
        on_gpu = timers[name].hardware.device.type == "cuda"
        # on a GPU also the first replay of its graphs
        timers[name].warm_up(SEEN_BEFORE + 2 if on_gpu else 1)
    floors = {
        name: Convolutions(timer.trainer.model, timer.next_batch(), timer.hardware, settings.clock)
        for name, timer in timers.items()
    }
    for timer in timers.values():
        if memory:
            timer.times.kept = measure_kept_memory(timer.trainer, timer.next_batch())
    first = timers[names[0]]
    steps = {name: make(first) for name, make in (others or {}).items()}
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in progress(range(rounds)):
        for name, timer in timers.items():
            timer.measure()
            timer.times.convolutions.append(floors[name].measure())
        for name, step in steps.items():
            start = settings.clock()
            step()
            synchronise(first.hardware)
            milliseconds[name].append(1e3 * (settings.clock() - start))
    for timer in timers.values():
        timer.measure_busy(5)
        timer.trainer.loader.close()
    return {name: timer.times for name, timer in timers.items()}, milliseconds


def _reset_memory() -> int:
    """Starts to measure the peak memory of the GPU; the bytes that are allocated already."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _fixed_words(settings: StepSettings) -> list[str]:
    """A batch is a step, and all variants have the same images."""
    return [
        f"data.size={settings.size}",
        f"train.batch_size={settings.batch_size}",
        f"train.nominal_batch={settings.batch_size}",
        "train.nonfinite=stop",
        "bag.multi_scale=1.0",
    ]


def _repeat(trainer: Trainer) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    epoch, full = 0, 0
    while True:
        for batch in trainer.loader.epoch(epoch):
            full = max(full, len(batch))
            if len(batch) == full:
                yield batch
        epoch += 1
