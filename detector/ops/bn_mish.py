"""BatchNorm and Mish in one: fewer passes over memory, and only x kept for the backward pass.

Eager training on float32 or bfloat16 maps on the CPU, contiguous or channels_last, with float32
parameters, runs the kernels of csrc/bn_mish_cpu.cpp; everything else runs torch's batch_norm and then
`mish`. Results do not depend on the number of threads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from detector.ops import _load
from detector.ops._mish import like_layout, mish, rational_mish, special_mode


def batch_norm_mish(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
) -> Tensor:
    """mish(batch_norm(x)), as torch.nn.functional.batch_norm and `mish` would compute it.

    Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015; Mish as in `mish`.

    Args:
        x: [B, C, H, W], or any shape that batch_norm takes.
        weight: [C] or None.
        bias: [C] or None.
        running_mean: [C] or None; updated in training.
        running_var: [C] or None; updated in training, with the variance over n - 1.
        momentum: weight of this batch in the running statistics, in [0, 1].
        eps: added to the variance.
        training: whether this batch's statistics are used, or the running ones.

    Returns:
        The shape, dtype and memory format of x.

    Raises:
        ValueError: in training, only one value a channel.
    """
    affine = weight is not None and bias is not None
    if not (training and affine and _fusible(x, weight, bias, running_mean, running_var)):
        normed = functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
        return mish(normed)
    x = _in_memory_format(x)
    return _BatchNormMish.apply(x, weight, bias, running_mean, running_var, momentum, eps)


def _fusible(x: Tensor, *channel_values: Tensor | None) -> bool:
    """Whether the compiled kernels take these; [B, C, H, W] and [C] each."""
    return (
        x.dim() == 4
        and x.numel() > x.shape[1]  # else torch's own says what is wrong
        and not special_mode()
        and _load.compiled("batch_norm_mish", x)
        and all(
            v is None or (v.dtype == torch.float32 and v.device == x.device and v.is_contiguous())
            for v in channel_values
        )
    )


class _BatchNormMish(torch.autograd.Function):
    """The compiled kernels, with the running statistics between them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        mean, var = torch.ops.detector_ops.bn_stats(x)
        rstd = (var + eps).rsqrt_()
        count = x.numel() // x.shape[1]
        if running_mean is not None:
            running_mean.lerp_(mean, momentum)
        if running_var is not None:
            running_var.lerp_(var * (count / (count - 1)), momentum)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps = eps
        return torch.ops.detector_ops.bn_mish_apply(x, mean, rstd, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():  # create_graph: this backward will be differentiated itself
            return (*_differentiable_backward(ctx, grad), None, None, None, None)
        dy, sum_dy, sum_dy_xhat = torch.ops.detector_ops.bn_mish_backward_reduce(
            like_layout(grad, x), x, mean, rstd, weight, bias
        )
        if not ctx.needs_input_grad[0]:
            return None, sum_dy_xhat, sum_dy, None, None, None, None
        count = x.numel() // x.shape[1]
        torch.ops.detector_ops.bn_backward_apply_(
            dy, x, mean, rstd, weight, sum_dy, sum_dy_xhat, count
        )
        return dy, sum_dy_xhat, sum_dy, None, None, None, None


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias as a graph of torch operators."""
    x, weight, bias, _, _ = ctx.saved_tensors
    normed = functional.batch_norm(x, None, None, weight, bias, True, 0.0, ctx.eps)
    inputs = [
        v for v, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed
    ]
    found = iter(torch.autograd.grad(rational_mish(normed), inputs, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad[:3])


def _in_memory_format(x: Tensor) -> Tensor:
    """Copies x [B, C, H, W] to contiguous if it is neither that nor channels_last."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()
