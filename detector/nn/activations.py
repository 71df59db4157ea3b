"""The activation registry.

Adding one is a function and a name:

    @ACTIVATIONS.register("squareplus")
    def squareplus(channels: int, *, b: float = 4.0) -> nn.Module:
        return Squareplus(b)

An entry is told the channel count (activations may learn a value a channel) and takes its
parameters, which a YAML may set (`activation: {name: leaky_relu, negative_slope: 0.2}`), by keyword.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detector import ops
from detector.errors import UserError
from detector.registry import Registry, nearest

ActFactory = Callable[[int], nn.Module]  # channels -> module

ACTIVATIONS: Registry[Callable[..., nn.Module]] = Registry("activation")


def activation(name: str, **parameters: Any) -> ActFactory:
    """The factory of a registered activation.

    Args:
        name: a name in `ACTIVATIONS`.
        parameters: passed to the entry by keyword.

    Raises:
        UserError: unknown name, or a parameter that the activation does not have.

    Example:
        >>> activation("leaky_relu", negative_slope=0.2)(64)
        LeakyReLU(negative_slope=0.2, inplace=True)
    """
    entry = ACTIVATIONS[name]
    known = [key for key in inspect.signature(entry).parameters if key != "channels"]
    for key in parameters:
        if key not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise UserError(f"activation {name}: no parameter {key!r}{nearest(key, known)} ({has})")
    return functools.partial(entry, **parameters)


class Mish(nn.Module):
    """x * tanh(softplus(x)), by the compiled kernels where they are there (`python -m detector.ops`).

    Range [-0.309, inf). Source: D. Misra, "Mish: A Self Regularized Non-Monotonic Activation
    Function", 2019, equation 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return ops.mish(x)

    def after_norm(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """mish(norm(x)) for x [B, C, H, W]; in training by one fused, less memory-hungry kernel."""
        if not norm.training:
            return ops.mish(norm(x))
        assert norm.num_batches_tracked is not None, "batch statistics are tracked"
        norm.num_batches_tracked.add_(1)
        return ops.batch_norm_mish(
            x,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            momentum=norm.momentum or 0.0,
            eps=norm.eps,
            training=True,
        )


class Swish(nn.Module):
    """x * sigmoid(beta * x); Ramachandran et al., "Searching for Activation Functions", 2017."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(self.beta * x)


@ACTIVATIONS.register("mish")
def _mish(channels: int) -> nn.Module:
    return Mish()


@ACTIVATIONS.register("leaky_relu", "leaky")
def _leaky_relu(channels: int, *, negative_slope: float = 0.1) -> nn.Module:
    return nn.LeakyReLU(negative_slope, inplace=True)  # in place: BatchNorm keeps its input


@ACTIVATIONS.register("relu")
def _relu(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


@ACTIVATIONS.register("swish", "silu")
def _swish(channels: int, *, beta: float = 1.0) -> nn.Module:
    return nn.SiLU(inplace=True) if beta == 1.0 else Swish(beta)


@ACTIVATIONS.register("gelu")
def _gelu(channels: int) -> nn.Module:
    return nn.GELU()


@ACTIVATIONS.register("elu")
def _elu(channels: int, *, alpha: float = 1.0) -> nn.Module:
    return nn.ELU(alpha, inplace=True)


@ACTIVATIONS.register("hardswish")
def _hardswish(channels: int) -> nn.Module:
    return nn.Hardswish(inplace=True)


@ACTIVATIONS.register("identity", "linear")
def _identity(channels: int) -> nn.Module:
    return nn.Identity()
