"""Convolution, with a kernel for the gradient of 3x3 weights on CPUs without AVX-512.

oneDNN has no good one there for channels_last maps: in the backward pass of yolov4-pacsp-s it took longer
than everything else (docs/speed.md). The gradient of the input and the forward pass are torch's.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from detector.ops import _load
from detector.ops._mish import match_layout, needs_torch_operators

Pair = tuple[int, ...]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`: [B, I, H, W] and [O, I / groups, h, w] -> [B, O, H', W'].

    The gradient of the weight differs from torch's by rounding.
    """
    pair = stride, padding, dilation
    is_plain = bias is None and groups == 1 and pair in _SHAPES and weight.shape[2:] == (3, 3)
    if not is_plain or not _uses_kernel(x, weight):
        return torch_functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _Conv3x3.apply(x, weight, stride[0])


_SHAPES = [((stride, stride), (1, 1), (1, 1)) for stride in (1, 2)]


def _uses_kernel(x: Tensor, weight: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and weight.requires_grad
        and x.dtype == weight.dtype == torch.float32
        and x.dim() == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and not needs_torch_operators()
        and _is_faster_here()
        and _load.has_kernel("conv3x3_grad_weight", x)
        and not torch.is_autocast_enabled(x.device.type)  # raises for the meta device
    )


@functools.cache
def _is_faster_here() -> bool:
    """Whether the kernel was measured to be faster than oneDNN's on such CPUs: 1.3 to 6 times."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


class _Conv3x3(torch.autograd.Function):
    """A 3x3 convolution without bias, padding 1; saves its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return torch_functional.conv2d(x, weight, None, stride, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        twice = torch.is_grad_enabled() or needs_torch_operators()  # second derivatives, or vmap
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *(grads[0], x, weight, None, [ctx.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1),
            [needs_x, needs_weight and twice, False],
        )
        if needs_weight and not twice:
            grad = grads[0].contiguous(memory_format=torch.channels_last)
            grad_weight = torch.ops.detector_ops.conv3x3_grad_weight(grad, x, ctx.stride)
            grad_weight = match_layout(grad_weight, weight)
        return grad_x, grad_weight, None
