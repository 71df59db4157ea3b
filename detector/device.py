"""The device, the floating-point precision and the memory format of a run."""

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.errors import UserError
from detector.structures import Batch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device and how a network runs on it.

    Attributes:
        device: of model and batches.
        precision: "fp32", "bf16" or "fp16" of the forward pass; weights are fp32 in any case.
        memory_format: of the images and so of the feature maps.
    """

    device: torch.device
    precision: str
    memory_format: torch.memory_format

    @classmethod
    def choose(cls, device: str, precision: str, *, channels_last: bool) -> "Hardware":
        """Resolves "auto": a GPU if there is one, and the fastest precision of the device.

        Raises:
            UserError: no such device, or fp16 training on a CPU.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            place = torch.device(device)
            torch.zeros(1, device=place).item()  # `meta` makes tensors without numbers
        except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"device {device!r} cannot be used: {reason}; try cpu, or cuda:0 for a GPU"
            ) from None
        if precision == "auto":
            precision = _choose_fast_precision(place)
        if precision == "fp16" and place.type == "cpu":
            raise UserError("fp16 is not supported on CPUs; use train.precision=bf16, fp32 or auto")
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        return cls(place, precision, memory_format)

    def place(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, in the memory format."""
        return model.to(device=self.device, memory_format=self.memory_format)  # pyright: ignore

    def move(self, batch: Batch) -> Batch:
        """Moves a batch to the device, its images in the memory format and still uint8."""
        return batch.to(self.device, self.memory_format)

    def autocast(self, *, cache: bool = True) -> torch.autocast:
        """The context in which the network runs its forward pass.

        Args:
            cache: keep the weights' copies in the precision until the context ends.
        """
        return torch.autocast(
            self.device.type,
            DTYPES[self.precision] if self.precision != "fp32" else None,
            enabled=self.precision != "fp32",
            cache_enabled=cache,
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which fp16 needs; switched off otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def peak_memory(self) -> int:
        """Peak memory in bytes: of torch on a GPU, of this process on a CPU; 0 if unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # on Linux getrusage begins with the peak of the process that started this one
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        try:
            import resource  # not on Windows
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def reset_peak_memory(self) -> None:
        """Begins a new peak, where the system can: a process may train several runs."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError):  # not Linux, or not permitted
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # man 5 proc

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        threads = torch.get_num_threads()
        return f"{self.device}, {threads} thread{'s' if threads > 1 else ''}, {self.precision}"


def scale_images(images: Tensor) -> Tensor:
    """Converts images uint8 [B, 3, H, W] to the network's input, float32 in [0, 1].

    Called on the device: uint8 is a quarter of the bytes to transfer.
    """
    return images.float() / 255


def compute_deterministically() -> None:
    """Makes torch use deterministic algorithms: the same input gives the same bits, on GPUs as well.

    Call it before a GPU is used, which is when cuBLAS reads its environment variable. Operations
    without a deterministic form still run, and torch warns and names them; the backward pass of max
    pooling on GPUs is one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> bool:
    """Makes malloc keep freed memory for the next tensors, as torch's allocator does on GPUs.

    By default glibc returns each large block to Linux, and the next one is mapped page by page: on a
    CPU that takes longer than the arithmetic on it. The price: the process stays at its peak memory
    plus fragmentation.

    Returns:
        Whether the C library supports it; only glibc does.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))  # -1: never


def _choose_fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "fp16"  # what the published weights were trained with
    if device.type == "cpu" and cpu_has_bf16():
        return "bf16"  # 1.2 times as fast as fp32 with AVX512-bf16; without it, 10 times as slow
    return "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
