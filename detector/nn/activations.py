"""The activation registry.

Adding one is a function and a name:

    @ACTIVATIONS.register("squareplus")
    def squareplus(channels: int, *, b: float = 4.0) -> nn.Module:
        return Squareplus(b)

An entry is told the channel count (activations may learn a value a channel) and takes its
parameters, which a YAML may set (`activation: {name: leaky_relu, negative_slope: 0.2}`), by keyword.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector import ops
from detector.registry import Registry

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
    return ACTIVATIONS.bind(name, parameters, given=("channels",))


class Mish(nn.Module):
    """x * tanh(softplus(x)), by the compiled kernels where they are there (`python -m detector.ops`).

    Range [-0.309, inf). Source: D. Misra, "Mish: A Self Regularized Non-Monotonic Activation
    Function", 2019, equation 1.
    """

    def __init__(self, inplace: bool = False) -> None:
        """`inplace`: overwrite the input where no gradient is recorded."""
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        recording = torch.is_grad_enabled() and x.requires_grad
        if self.inplace and not recording and not torch.compiler.is_compiling():
            return ops.mish_(x)
        return ops.mish(x)

    def extra_repr(self) -> str:
        """For print(), as torch's activations have it."""
        return "inplace=True" if self.inplace else ""


class Swish(nn.Module):
    """x * sigmoid(beta * x); Ramachandran et al., "Searching for Activation Functions", 2017."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(self.beta * x)


def _wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, where squares and exponentials need the range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Formula(nn.Module):
    """An activation that is one function of x; computed in float32 at least."""

    def __init__(self, function: Callable[..., Tensor], **parameters: float) -> None:
        super().__init__()
        self.function, self.settings = function, parameters

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape and dtype out."""
        return self.function(_wide(x), **self.settings).to(x.dtype)

    def extra_repr(self) -> str:
        """For print()."""
        return ", ".join(
            [self.function.__name__, *(f"{k}={v:g}" for k, v in self.settings.items())]
        )


class SReLU(nn.Module):
    """Three straight pieces, whose ends and outer slopes are learned, four values a channel.

    high + high_slope (x - high) from `high` on, low + low_slope (x - low) up to `low`, x between.
    Source: X. Jin et al., "Deep Learning with S-shaped Rectified Linear Activation Units", 2015.
    """

    def __init__(self, channels: int, low: float, low_slope: float, high: float, high_slope: float):
        super().__init__()
        self.low = nn.Parameter(torch.full((channels,), low))
        self.low_slope = nn.Parameter(torch.full((channels,), low_slope))
        self.high = nn.Parameter(torch.full((channels,), high))
        self.high_slope = nn.Parameter(torch.full((channels,), high_slope))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, ...] -> the same shape and dtype."""
        shape = (-1, *(1,) * (x.ndim - 2))
        low, low_slope, high, high_slope = (
            value.view(shape).to(x.dtype)
            for value in (self.low, self.low_slope, self.high, self.high_slope)
        )
        below = low + low_slope * (x - low)
        above = high + high_slope * (x - high)
        return torch.where(x >= high, above, torch.where(x <= low, below, x))


# ---- The entries. Each says its formula, derivative, range and source ----


@ACTIVATIONS.register("mish")
def _mish(channels: int) -> nn.Module:
    """X tanh(softplus(x)).

    Derivative: tanh(softplus(x)) + x sigmoid(x) sech^2(softplus(x)). Range: [-0.309, inf). Source:
    D. Misra, 2019.
    """
    return Mish(inplace=True)


@ACTIVATIONS.register("swish", "silu")
def _swish(channels: int, *, beta: float = 1.0) -> nn.Module:
    """X s with s = sigmoid(beta x).

    Derivative: s + beta x s (1 - s). Range: [-0.278 / beta, inf). Source: P. Ramachandran et al.,
    2017.
    """
    return nn.SiLU(inplace=True) if beta == 1.0 else Swish(beta)


@ACTIVATIONS.register("gelu")
def _gelu(channels: int) -> nn.Module:
    """X P(X <= x), X normal.

    Derivative: P + x density(x). Range: [-0.170, inf). Source: D. Hendrycks and K. Gimpel, 2016.
    """
    return nn.GELU()


@ACTIVATIONS.register("relu")
def _relu(channels: int) -> nn.Module:
    """max(x, 0).

    Derivative: 0 or 1. Range: [0, inf). Source: V. Nair and G. Hinton, 2010.
    """
    return nn.ReLU(inplace=True)


@ACTIVATIONS.register("leaky_relu", "leaky")
def _leaky_relu(channels: int, *, negative_slope: float = 0.1) -> nn.Module:
    """max(x, slope x).

    Derivative: slope or 1. Range: all numbers. Source: A. Maas et al., 2013; 0.1 as darknet has it.
    """
    return nn.LeakyReLU(negative_slope, inplace=True)  # in place: BatchNorm keeps its input


@ACTIVATIONS.register("elu")
def _elu(channels: int, *, alpha: float = 1.0) -> nn.Module:
    """x, below 0 alpha (e^x - 1).

    Derivative: 1 or alpha e^x. Range: (-alpha, inf). Source: D.-A. Clevert et al., 2015.
    """
    return nn.ELU(alpha, inplace=True)


@ACTIVATIONS.register("selu")
def _selu(channels: int) -> nn.Module:
    """1.0507 elu(x) with alpha 1.6733.

    Derivative: as elu. Range: (-1.758, inf). Source: G. Klambauer et al., 2017.
    """
    return nn.SELU(inplace=True)


@ACTIVATIONS.register("softplus")
def _softplus(channels: int, *, beta: float = 1.0) -> nn.Module:
    """log(1 + e^(beta x)) / beta.

    Derivative: sigmoid(beta x). Range: (0, inf). Source: C. Dugas et al., 2001.
    """
    return nn.Softplus(beta)


@ACTIVATIONS.register("srelu")
def _srelu(
    channels: int,
    *,
    low: float = 0.0,
    low_slope: float = 0.2,
    high: float = 1.0,
    high_slope: float = 1.0,
) -> nn.Module:
    """Three straight pieces, learned by channel.

    Derivative: their slopes. Range: all numbers. Source: X. Jin et al., 2015.
    """
    return SReLU(channels, low, low_slope, high, high_slope)


@ACTIVATIONS.register("isru")
def _isru(channels: int, *, alpha: float = 1.0) -> nn.Module:
    """X / sqrt(1 + alpha x^2).

    Derivative: (1 + alpha x^2)^(-3/2). Range: (-1, 1) / sqrt(alpha). Source: B. Carlile et al., 2017.
    """
    return Formula(_isru_of, alpha=alpha)


def _isru_of(x: Tensor, *, alpha: float) -> Tensor:
    size = x.abs().clamp(min=1.0)  # taken out first: x^2 could overflow
    return x / size * torch.rsqrt(size**-2 + alpha * (x / size) ** 2)


@ACTIVATIONS.register("tanh")
def _tanh(channels: int) -> nn.Module:
    """tanh(x).

    Derivative: 1 - tanh^2(x). Range: (-1, 1). Source: Y. LeCun et al., 1998.
    """
    return nn.Tanh()


@ACTIVATIONS.register("rrelu")
def _rrelu(channels: int, *, lower: float = 1 / 8, upper: float = 1 / 3) -> nn.Module:
    """x, below 0 a x.

    Derivative: a or 1. Range: all numbers. Source: B. Xu et al., 2015.

    In training each a is drawn from lower .. upper, by torch's generator, which the run seeds and its
    checkpoints hold; in evaluation it is their mean.
    """
    return nn.RReLU(lower, upper)


@ACTIVATIONS.register("arctan_softplus")
def _arctan_softplus(channels: int) -> nn.Module:
    """arctan(x) softplus(x).

    Derivative: softplus(x) / (1 + x^2) + arctan(x) sigmoid(x). Range: [-0.251, inf). Source: D.
    Misra, 2019.
    """
    return Formula(_arctan_softplus_of)


def _arctan_softplus_of(x: Tensor) -> Tensor:
    return torch.atan(x) * functional.softplus(x)


@ACTIVATIONS.register("tanh_softplus")
def _tanh_softplus(channels: int) -> nn.Module:
    """tanh(x) softplus(x).

    Derivative: sech^2(x) softplus(x) + tanh(x) sigmoid(x). Range: [-0.247, inf). Source: D. Misra,
    2019.
    """
    return Formula(_tanh_softplus_of)


def _tanh_softplus_of(x: Tensor) -> Tensor:
    return torch.tanh(x) * functional.softplus(x)


@ACTIVATIONS.register("log_arctan_exp")
def _log_arctan_exp(channels: int) -> nn.Module:
    """X log(1 + arctan(e)), e = e^x.

    Derivative: log(1 + arctan(e)) + x e / ((1 + e^2)(1 + arctan(e))). Range: [-0.308, inf). Source:
    D. Misra, 2019.
    """
    return Formula(_log_arctan_exp_of)


def _log_arctan_exp_of(x: Tensor) -> Tensor:
    return x * torch.log1p(torch.atan(_exp(x)))


@ACTIVATIONS.register("log_tanh_exp")
def _log_tanh_exp(channels: int) -> nn.Module:
    """X log(1 + tanh(e)), e = e^x.

    Derivative: log(1 + tanh(e)) + x e sech^2(e) / (1 + tanh(e)). Range: [-0.308, inf). Source: D.
    Misra, 2019.
    """
    return Formula(_log_tanh_exp_of)


def _log_tanh_exp_of(x: Tensor) -> Tensor:
    return x * torch.log1p(torch.tanh(_exp(x)))


def _exp(x: Tensor) -> Tensor:
    """e^x up to x = 20, where arctan and tanh of it no longer change: so no inf times 0 in a slope."""
    return x.clamp(max=20.0).exp()


@ACTIVATIONS.register("hardswish")
def _hardswish(channels: int) -> nn.Module:
    """X clip(x + 3, 0, 6) / 6.

    Derivative: 0, (2 x + 3) / 6 or 1. Range: [-0.375, inf). Source: A. Howard et al., 2019.
    """
    return nn.Hardswish(inplace=True)


@ACTIVATIONS.register("logistic", "sigmoid")
def _logistic(channels: int) -> nn.Module:
    """S = 1 / (1 + e^-x).

    Derivative: s (1 - s). Range: (0, 1). Source: P. Verhulst, 1845.
    """
    return nn.Sigmoid()


@ACTIVATIONS.register("identity", "linear")
def _identity(channels: int) -> nn.Module:
    """X.

    Derivative: 1. Range: all numbers.
    """
    return nn.Identity()
