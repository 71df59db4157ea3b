"""Mish: which implementation runs where, and its derivatives.

In eager mode, on a device and dtype with a compiled kernel: the kernel, with the autograd function below.
Under torch.compile and torch.export: the same rational formula in torch operators, which the compiler
fuses with its neighbours. During ONNX export (it becomes ONNX's own Mish) or tracing, and everywhere
else: torch.nn.functional.mish.
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
    Differentiable any number of times; only x is saved for the backward pass.

    Args:
        x: any shape and layout, floating point.

    Returns:
        The shape and dtype of x, values in [-0.309, inf); the strides of x if x is dense, else
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
    """Mish in place, for inference: allocating a result costs more than the arithmetic.

    Args:
        x: any shape, floating point; overwritten. If autograd records, torch's in-place operator runs,
            with its restrictions.

    Returns:
        x itself.
    """
    recording = torch.is_grad_enabled() and x.requires_grad
    if needs_torch_operators() or recording or not _load.has_kernel("mish", x) or not _is_dense(x):
        return functional.mish(x, inplace=True)
    torch.ops.detector_ops.mish_(x)
    if not x.is_inference():
        # a backward pass that needs the old x then raises an error
        torch.autograd.graph.increment_version(x)
    return x


class _Mish(torch.autograd.Function):
    """The compiled forward and backward pass; saves only x, which must be dense."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.ops.detector_ops.mish_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled() or needs_torch_operators():  # second derivatives, or vmap
            return grad * rational_mish_derivative(x)
        return torch.ops.detector_ops.mish_backward(match_layout(grad, x), x)


def rational_mish(x: Tensor) -> Tensor:
    """The formula of csrc/mish_math.h in torch operators; differentiable; any shape."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    above = wide > _IDENTITY_FROM
    # Both factors use the limited value: in the branch not taken, inf * 0 would make the gradient NaN.
    # Not by clamp, whose gradient at the limit is 0.
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
    """Whether to use torch operators: under a compiler, exporter, tracer, functorch, forward AD."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _is_dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in any order of dimensions."""
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def to_dense(x: Tensor) -> Tensor:
    """Copies x to a contiguous tensor if it has gaps or overlaps, else returns it."""
    return x if _is_dense(x) else x.contiguous()


def match_layout(grad: Tensor, x: Tensor) -> Tensor:
    """Copies the gradient to the strides of x if they differ: kernels index both by one flat index.

    y.sum().backward() passes a gradient with strides 0, a permutation one in another order.
    """
    if grad.stride() == x.stride() and grad.dtype == x.dtype:
        return grad
    return torch.empty_like(x).copy_(grad)
