"""Mish: which implementation runs where, and its derivatives.

Eager, on a device and dtype with a compiled kernel: the kernel, with autograd written here. Under
torch.compile and torch.export: the same rational formula in plain torch operators, which a compiler
then fuses with their neighbours. While exporting to ONNX (whose own Mish it becomes) or tracing, and for
everything else: torch.nn.functional.mish.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from detector.ops import _load

_IDENTITY_FROM = 20.0  # as in csrc/mish_math.h, where the formula is derived


def mish(x: Tensor) -> Tensor:
    """Mish, x * tanh(softplus(x)).

    Source: D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019, eq. 1.
    Differentiable any number of times; only x is kept for the backward pass.

    Args:
        x: any shape and layout, floating point.

    Returns:
        The shape and dtype of x, values in [-0.309, inf); the strides of x where x is dense, else
        contiguous.

    Example:
        >>> mish(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.3034,  0.0000,  0.8651])
    """
    if needs_torch_operators():
        compiling = torch.compiler.is_compiling() and not torch.onnx.is_in_onnx_export()
        return rational_mish(x) if compiling else functional.mish(x)
    if not _load.has_kernel("mish", x):
        return functional.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(to_dense(x))
    return torch.ops.detector_ops.mish_forward(to_dense(x))


def mish_(x: Tensor) -> Tensor:
    """Mish in place, for inference: no new memory, which costs more than the arithmetic.

    Args:
        x: any shape, floating point; overwritten. Where autograd is recording, torch's own in-place
            operator runs, with its rules.

    Returns:
        x itself.
    """
    recording = torch.is_grad_enabled() and x.requires_grad
    if needs_torch_operators() or recording or not _load.has_kernel("mish", x) or not _is_dense(x):
        return functional.mish(x, inplace=True)
    torch.ops.detector_ops.mish_(x)
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)  # so that a backward that needs the old x says so
    return x


class _Mish(torch.autograd.Function):
    """The compiled forward and backward; x, dense, is the one saved tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.ops.detector_ops.mish_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        if (
            torch.is_grad_enabled() or needs_torch_operators()
        ):  # it will be differentiated, or is batched
            return grad * rational_mish_derivative(x)
        return torch.ops.detector_ops.mish_backward(match_layout(grad, x), x)


def rational_mish(x: Tensor) -> Tensor:
    """The formula of csrc/mish_math.h in torch operators; differentiable; any shape."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    above = wide > _IDENTITY_FROM
    # Limited in both factors: in the branch not taken, inf * 0 would make the gradient NaN. Not by
    # clamp, whose own gradient at the very limit is 0.
    low = torch.where(above, _IDENTITY_FROM, wide)
    e = low.exp()
    n = e * (e + 2)
    return torch.where(above, wide, low * n / (n + 2)).to(x.dtype)


def rational_mish_derivative(x: Tensor) -> Tensor:
    """Slope of Mish at x in torch operators; differentiable; any shape."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    above = wide > _IDENTITY_FROM
    low = torch.where(above, _IDENTITY_FROM, wide)
    e = low.exp()
    n = e * (e + 2)
    r = 1 / (n + 2)
    slope = n * r + low * (4 * e * (1 + e) * r) * r
    return torch.where(above, 1.0, slope).to(x.dtype)


def needs_torch_operators() -> bool:
    """Whether plain torch operators are needed: for a compiler, exporter, tracer, functorch, or
    derivatives forwards.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _is_dense(x: Tensor) -> bool:
    """Whether x fills its memory, each element once, whatever the order of dimensions."""
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def to_dense(x: Tensor) -> Tensor:
    """x, copied only where it has holes or overlaps."""
    return x if _is_dense(x) else x.contiguous()


def match_layout(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient with the strides of x (both [*shape]): kernels walk both by one flat index.

    y.sum().backward() sends a gradient of strides 0, a permute one in another order.
    """
    if grad.stride() == x.stride() and grad.dtype == x.dtype:
        return grad
    return torch.empty_like(x).copy_(grad)
