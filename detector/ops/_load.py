"""Loads the compiled kernels once, checks them, and says why where they cannot be used.

The state is decided at the first use and then stays: `status()` is either usable or carries the
reason. `DETECTOR_NATIVE=1` in the environment switches the kernels off without a word; every other
reason is told in one RuntimeWarning.
"""

import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

CPU_LIBRARY = Path(__file__).with_name("_C_cpu.so")
BUILD_ERROR = Path(__file__).with_name("build_error.txt")
# Operator -> device type -> the dtypes there is a kernel for.
KERNELS: dict[str, dict[str, tuple[torch.dtype, ...]]] = {
    "mish": {"cpu": (torch.float32, torch.float64, torch.bfloat16)},
    "batch_norm_mish": {"cpu": (torch.float32,)},
}
_SWITCH = "DETECTOR_NATIVE"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the compiled kernels run in this process, and if not, why."""

    usable: bool
    reason: str = ""


@functools.cache
def status() -> Status:
    """Loads the library at the first call; warns at most once, at that call."""
    if os.environ.get(_SWITCH, "0") not in ("", "0"):
        return Status(False, f"switched off by {_SWITCH}={os.environ[_SWITCH]}")
    try:
        _load()
        _self_test()
    except (OSError, RuntimeError) as error:
        reason = str(error)
        warnings.warn(
            f"detector: the compiled kernels are not in use, torch's own run instead: {reason}",
            RuntimeWarning,
            stacklevel=4,  # the line that called mish: this, compiled, mish, it
        )
        return Status(False, reason)
    return Status(True)


def compiled(op: str, x: Tensor) -> bool:
    """Whether a compiled kernel of `op` takes the device and dtype of x."""
    return x.dtype in KERNELS[op].get(x.device.type, ()) and status().usable


def why_not(op: str, device: str, dtype: torch.dtype) -> str:
    """The reason why `op` is not the compiled one there; empty where it is."""
    if device not in KERNELS[op]:
        return f"no kernel for {device}"
    if dtype not in KERNELS[op][device]:
        return f"no {device} kernel for this dtype"
    return status().reason


def _load() -> None:
    """Loads the library and tells torch the shapes its operators return.

    Raises:
        RuntimeError: not built; the message quotes the build's own.
        OSError: built, but the dynamic linker refuses it.
    """
    if not CPU_LIBRARY.exists():
        why = BUILD_ERROR.read_text("utf-8").strip() if BUILD_ERROR.exists() else "not built"
        raise RuntimeError(f"{why}; `pip install --no-build-isolation -e .` builds them")
    torch.ops.load_library(CPU_LIBRARY)
    _register_fakes()


@functools.cache  # torch takes each once
def _register_fakes() -> None:
    """What torch.compile, torch.export and FakeTensor need: results without values."""

    @torch.library.register_fake("detector_ops::mish_forward")
    def _(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("detector_ops::mish_backward")
    def _(grad: Tensor, x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("detector_ops::mish_")
    def _(x: Tensor) -> None:
        return None

    @torch.library.register_fake("detector_ops::bn_stats")
    def _(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_empty(x.shape[1]), x.new_empty(x.shape[1])

    @torch.library.register_fake("detector_ops::bn_mish_apply")
    def _(x: Tensor, *channel_values: Tensor) -> Tensor:
        return torch.empty_like(x)

    @torch.library.register_fake("detector_ops::bn_mish_backward_reduce")
    def _(grad: Tensor, x: Tensor, *channel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])

    @torch.library.register_fake("detector_ops::bn_backward_apply_")
    def _(dy: Tensor, *others: Tensor | int) -> None:
        return None


def _self_test() -> None:
    """A library that loads may still be wrong here (another torch or CPU): 1 ms to find out.

    Raises:
        RuntimeError: a value differs from torch's own.
    """
    kernels = torch.ops.detector_ops
    for dtype in KERNELS["mish"]["cpu"]:
        x = torch.linspace(-12.0, 24.0, 91, dtype=torch.float64).to(dtype)
        ones = torch.ones_like(x)
        _compare("mish", kernels.mish_forward(x), functional.mish(x))
        slope = torch.ops.aten.mish_backward(ones, x)
        _compare("mish backward", kernels.mish_backward(ones, x), slope)

    maps = torch.linspace(-3.0, 5.0, 2 * 3 * 35).reshape(2, 3, 5, 7)
    weight, bias = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([-1.0, 0.0, 1.0])
    expected = functional.batch_norm(maps, None, None, weight, bias, True)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = maps.contiguous(memory_format=memory_format)
        mean, var = kernels.bn_stats(x)
        fused = kernels.bn_mish_apply(x, mean, (var + 1e-5).rsqrt(), weight, bias)
        _compare("BatchNorm + Mish", fused, functional.mish(expected))


def _compare(what: str, ours: Tensor, expected: Tensor) -> None:
    tolerance = 1e-2 if ours.dtype == torch.bfloat16 else 1e-4
    if not torch.allclose(ours, expected, rtol=tolerance, atol=tolerance):
        raise RuntimeError(
            f"self-test failed: {what} of {CPU_LIBRARY.name} is wrong for {ours.dtype}"
        )
