"""Where to compute, and in which floating-point format."""

import ctypes
import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.errors import UserError
from detector.structures import Batch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device and how it is used.

    Attributes:
        device: where model and batches live.
        precision: "fp32", "bf16" or "fp16"; of the network's inside, weights stay fp32.
        memory_format: of the images, which the maps inherit.
    """

    device: torch.device
    precision: str
    memory_format: torch.memory_format

    @classmethod
    def choose(cls, device: str, precision: str, *, channels_last: bool) -> "Hardware":
        """The hardware for settings in which "auto" stands for what is there and fast.

        Raises:
            UserError: no such device, or fp16 training on a CPU.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            place = torch.device(device)
            torch.zeros(1, device=place)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"device {device!r} cannot be used: {reason}; try cpu") from None
        if precision == "auto":
            precision = _fast_precision(place)
        if precision == "fp16" and place.type == "cpu":
            raise UserError("fp16 is not for CPUs; use train.precision=bf16, fp32 or auto")
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return cls(place, precision, layout)

    def place(self, model: nn.Module) -> nn.Module:
        """The model, moved to the device in the memory format."""
        return model.to(device=self.device, memory_format=self.memory_format)  # pyright: ignore

    def move(self, batch: Batch) -> Batch:
        """The batch on the device, its images in the memory format and still uint8."""
        return batch.to(self.device, self.memory_format)

    def autocast(self) -> torch.autocast:
        """The context in which the network runs its forward pass."""
        return torch.autocast(
            self.device.type,
            DTYPES[self.precision] if self.precision != "fp32" else None,
            enabled=self.precision != "fp32",
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which fp16 needs; switched off otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def peak_memory(self) -> int:
        """The most bytes in use so far: of torch on a GPU, of this process on a CPU; 0 if not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource  # not on Windows
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        return f"{self.device}, {torch.get_num_threads()} threads, {self.precision}"


def scale_images(images: Tensor) -> Tensor:
    """Images uint8 [B, 3, H, W] as the network takes them: float32 in [0, 1].

    On the device, so that a quarter of the bytes travel there.
    """
    return images.float() / 255


def compute_deterministically() -> None:
    """Makes torch compute the same bits from the same numbers each time, on GPUs as well.

    To be called before a GPU is used: cuBLAS reads its setting from the environment then. An operation
    that has no deterministic form runs nevertheless, and torch warns and names it: the backward pass of
    max pooling on GPUs is one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> bool:
    """Lets this process keep memory that it frees, for the next tensors, as torch does on GPUs.

    glibc gives every large block back to Linux, which then hands out the next one page by page: on a CPU
    that takes longer than the arithmetic on it. The process's size stays at what it needed most, and
    gaps between tensors of many sizes come on top.

    Returns:
        Whether the C library could be told; only glibc can.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))  # -1: never


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "fp16"  # what the published weights were trained with
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"  # 1.2 times as fast as fp32 with AVX512-bf16; without it, 10 times as slow
    return "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
