"""Loads the compiled kernels, tests them, and explains why if they cannot be used.

There is one library per device type, loaded at its first use. The result holds for the whole process:
`status()` is either usable or has the reason. `DETECTOR_NATIVE=1` in the environment switches the kernels
off silently; every other reason is reported by one RuntimeWarning.
"""

import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from detector.ops.activation_codes import ActivationCode

FOLDER = Path(__file__).parent
# Operator -> device type -> dtypes with a kernel.
KERNELS: dict[str, dict[str, tuple[torch.dtype, ...]]] = {
    "mish": {
        "cpu": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
        "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
    },
    "batch_norm_act": {
        "cpu": (torch.float32, torch.bfloat16, torch.float16),
        "cuda": (torch.float32, torch.bfloat16, torch.float16),
    },
    "conv3x3_grad_weight": {"cpu": (torch.float32,)},
}
_SWITCH = "DETECTOR_NATIVE"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the compiled kernels run in this process, and if not, why."""

    usable: bool
    reason: str = ""


@functools.cache
def status(device: str = "cpu") -> Status:
    """Loads the library for a device type at the first call; warns at most once, at that call."""
    if os.environ.get(_SWITCH, "0") not in ("", "0"):
        return Status(False, f"switched off by {_SWITCH}={os.environ[_SWITCH]}")
    if device != "cpu" and not status("cpu").usable:  # the CPU library defines the operators
        return status("cpu")
    try:
        _load(device)
        with torch.device(device):  # overrides torch.set_default_device
            _test(device)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        warnings.warn(
            f"detector: compiled {device} kernels not used, torch's operators run instead: {reason}",
            RuntimeWarning,
            stacklevel=4,  # the caller of mish: status, has_kernel, mish, caller
        )
        return Status(False, reason)
    return Status(True)


def has_kernel(op: str, x: Tensor) -> bool:
    """Whether there is a usable compiled kernel of `op` for the device and dtype of x."""
    device = x.device.type
    return (
        x.dtype in KERNELS[op].get(device, ()) and status(device).usable and not _explain_stale(op)
    )


def explain_fallback(op: str, device: str, dtype: torch.dtype) -> str:
    """Why `op` has no compiled kernel for a device and dtype; empty if it has one."""
    if device not in KERNELS[op]:
        return f"no kernel for {device}"
    if dtype not in KERNELS[op][device]:
        return f"no {device} kernel for this dtype"
    if device == "cuda" and not torch.cuda.is_available():
        return _explain_missing("cuda") or "torch finds no NVIDIA GPU"
    return status(device).reason or _explain_stale(op)


def library_path(device: str) -> Path:
    """Path of the compiled kernels for a device type; the file may be missing."""
    return FOLDER / f"_C_{device}.so"


def _explain_missing(device: str) -> str:
    """Why a device type has no library; empty if it has one."""
    library = library_path(device)
    if library.exists():
        return ""
    error = library.with_name(f"{library.stem}_build_error.txt")
    why = error.read_text("utf-8").strip() if error.exists() else "not built"
    return f"{why}; `pip install --no-build-isolation -e .` builds them"


@functools.cache
def _explain_stale(op: str) -> str:
    """Why a loaded library lacks a newer operator; empty if it has it."""
    if op != "conv3x3_grad_weight" or hasattr(torch.ops.detector_ops, op):
        return ""
    return "its library is older than this code; `pip install --no-build-isolation -e .` builds it"


def _load(device: str) -> None:
    """Loads a library and registers the shapes that its operators return.

    Raises:
        RuntimeError: not built; the message has the error of the build.
        OSError: the dynamic linker cannot load it.
    """
    if why := _explain_missing(device):
        raise RuntimeError(why)
    torch.ops.load_library(library_path(device))
    _register_fakes()


@functools.cache  # torch accepts one registration per operator
def _register_fakes() -> None:
    """Registers the shape functions for torch.compile, torch.export and FakeTensor."""

    @torch.library.register_fake("detector_ops::mish_forward")
    def _(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("detector_ops::mish_backward")
    def _(grad: Tensor, x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("detector_ops::mish_out")
    def _(x: Tensor, y: Tensor) -> None:
        return None

    @torch.library.register_fake("detector_ops::mish_")
    def _(x: Tensor) -> None:
        return None

    @torch.library.register_fake("detector_ops::bn_stats")
    def _(x: Tensor) -> tuple[Tensor, Tensor]:
        return _channel_values(x), _channel_values(x)

    @torch.library.register_fake("detector_ops::bn_act_apply")
    def _(x: Tensor, *others: object) -> Tensor:
        return torch.empty_like(x)

    @torch.library.register_fake("detector_ops::bn_act_backward_reduce")
    def _(grad: Tensor, x: Tensor, *others: object) -> tuple[Tensor, Tensor]:
        return _channel_values(x), _channel_values(x)

    @torch.library.register_fake("detector_ops::bn_act_backward_apply_")
    def _(grad: Tensor, *others: object) -> None:
        return None

    if _explain_stale("conv3x3_grad_weight"):
        return

    @torch.library.register_fake("detector_ops::conv3x3_grad_weight")
    def _(grad: Tensor, x: Tensor, stride: int) -> Tensor:
        weight = x.new_empty(grad.shape[1], x.shape[1], 3, 3)
        return weight.contiguous(memory_format=torch.channels_last)


def _channel_values(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


def _test(device: str) -> None:
    """Compares the kernels with torch: another torch, CPU or driver may break them. Takes 2 ms.

    Raises:
        RuntimeError: a value differs from torch's, or the device cannot run the kernel.
    """
    kernels = torch.ops.detector_ops
    for dtype in KERNELS["mish"][device]:
        x = torch.linspace(-12.0, 24.0, 91, dtype=torch.float64).to(dtype)
        ones = torch.ones_like(x)
        _compare("mish", kernels.mish_forward(x), functional.mish(x))
        slope = torch.ops.aten.mish_backward(ones, x)
        _compare("mish backward", kernels.mish_backward(ones, x), slope)

    wide = torch.float32  # overrides torch.set_default_dtype
    maps = torch.linspace(-3.0, 5.0, 2 * 3 * 35, dtype=wide).reshape(2, 3, 5, 7)
    weight, bias = torch.tensor([[0.5, 1.0, 2.0], [-1.0, 0.0, 1.0]], dtype=wide)
    expected = functional.mish(functional.batch_norm(maps, None, None, weight, bias, True))
    for dtype in KERNELS["batch_norm_act"][device]:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = maps.to(dtype).contiguous(memory_format=memory_format)
            mean, var = kernels.bn_stats(x)
            values = {"mean": mean, "rstd": (var + 1e-5).rsqrt(), "weight": weight, "bias": bias}
            fused = kernels.bn_act_apply(
                x, **values, activation=int(ActivationCode.MISH), parameter=0.0
            )
            _compare("BatchNorm + Mish", fused, expected.to(dtype))
    if device == "cpu" and not _explain_stale("conv3x3_grad_weight"):
        _test_convolution(maps.contiguous(memory_format=torch.channels_last))


def _test_convolution(x: Tensor) -> None:
    """The gradient of 3x3 weights, of maps [B, C, H, W]."""
    grad = x.flip(0).contiguous(memory_format=torch.channels_last)
    weight = x.new_zeros(x.shape[1], x.shape[1], 3, 3)
    fixed = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])
    expected = torch.ops.aten.convolution_backward(grad, x, weight, None, *fixed)[1]
    ours = torch.ops.detector_ops.conv3x3_grad_weight(grad, x, 1)
    _compare("gradient of a convolution", ours, expected)


def _compare(what: str, ours: Tensor, expected: Tensor) -> None:
    tolerance = 1e-2 if ours.dtype in (torch.bfloat16, torch.float16) else 1e-4
    if not torch.allclose(ours, expected, rtol=tolerance, atol=tolerance):
        library = library_path(ours.device.type).name
        raise RuntimeError(
            f"self-test failed: {what} of {library} returns wrong values for {ours.dtype}"
        )
