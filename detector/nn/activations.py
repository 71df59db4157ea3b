"""The activation registry.

To add one, write a function and register its name:

    @ACTIVATIONS.register("squareplus")
    def squareplus(channels: int, *, b: float = 4.0) -> nn.Module:
        return Squareplus(b)

It takes the channel count (an activation may learn one value per channel) and, by keyword, the
parameters that a YAML may set: `activation: {name: leaky_relu, negative_slope: 0.2}`.
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
    """Looks up a registered activation and binds its parameters.

    Args:
        name: a name in `ACTIVATIONS`.
        parameters: passed to it by keyword.

    Returns:
        Its factory: channels -> module.

    Raises:
        UserError: unknown name, or a parameter that the activation does not take.

    Example:
        >>> activation("leaky_relu", negative_slope=0.2)(64)
        LeakyReLU(negative_slope=0.2, inplace=True)
    """
    return ACTIVATIONS.bind(name, parameters, given=("channels",))


class Mish(nn.Module):
    """x * tanh(softplus(x)), by the compiled kernels where they are available (`python -m detector.ops`).

    Range [-0.309, inf). Source: D. Misra, "Mish: A Self Regularized Non-Monotonic Activation
    Function", 2019, equation 1.
    """

    def __init__(self, inplace: bool = False) -> None:
        """`inplace`: overwrite the input unless autograd is recording."""
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        recording = torch.is_grad_enabled() and x.requires_grad
        if self.inplace and not recording and not torch.compiler.is_compiling():
            return ops.mish_(x)
        return ops.mish(x)

    def extra_repr(self) -> str:
        """As in torch's activations."""
        return "inplace=True" if self.inplace else ""


class Swish(nn.Module):
    """x * sigmoid(beta * x); Ramachandran et al., "Searching for Activation Functions", 2017."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(self.beta * x)


def _upcast(x: Tensor) -> Tensor:
    """Converts float16 and bfloat16 to float32: squares and exponentials need its range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Formula(nn.Module):
    """An activation given by one function of x, computed in float32 or wider."""

    def __init__(self, function: Callable[..., Tensor], **parameters: float) -> None:
        super().__init__()
        self.function, self.settings = function, parameters

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape and dtype out."""
        return self.function(_upcast(x), **self.settings).to(x.dtype)

    def extra_repr(self) -> str:
        """Function name and parameters."""
        return ", ".join(
            [self.function.__name__, *(f"{k}={v:g}" for k, v in self.settings.items())]
        )


class SReLU(nn.Module):
    """Piecewise linear in three pieces; thresholds and outer slopes are learned, four values per channel.

    high + high_slope (x - high) for x >= high, low + low_slope (x - low) for x <= low, else x.
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


# ---- The registered activations, each with its formula, derivative, range and source ----


@ACTIVATIONS.register("mish")
def _mish(channels: int) -> nn.Module:
    """x tanh(softplus(x)).

    Derivative: tanh(softplus(x)) + x sigmoid(x) sech^2(softplus(x)). Range: [-0.309, inf). Source:
    D. Misra, 2019.
    """
    return Mish(inplace=True)


@ACTIVATIONS.register("swish", "silu")
def _swish(channels: int, *, beta: float = 1.0) -> nn.Module:
    """x s, with s = sigmoid(beta x).

    Derivative: s + beta x s (1 - s). Range: [-0.278 / beta, inf). Source: P. Ramachandran et al.,
    2017.
    """
    return nn.SiLU(inplace=True) if beta == 1.0 else Swish(beta)


@ACTIVATIONS.register("gelu")
def _gelu(channels: int) -> nn.Module:
    """x P(X <= x), with X standard normal.

    Derivative: P(X <= x) + x p(x), with p the density of X. Range: [-0.170, inf). Source:
    D. Hendrycks and K. Gimpel, 2016.
    """
    return nn.GELU()


@ACTIVATIONS.register("relu")
def _relu(channels: int) -> nn.Module:
    """max(x, 0).

    Derivative: 1 for x > 0, else 0. Range: [0, inf). Source: V. Nair and G. Hinton, 2010.
    """
    return nn.ReLU(inplace=True)


@ACTIVATIONS.register("leaky_relu", "leaky")
def _leaky_relu(channels: int, *, negative_slope: float = 0.1) -> nn.Module:
    """max(x, slope x).

    Derivative: 1 for x > 0, else slope. Range: all reals. Source: A. Maas et al., 2013; 0.1 is
    darknet's slope.
    """
    return nn.LeakyReLU(negative_slope, inplace=True)  # in place: BatchNorm keeps its input


@ACTIVATIONS.register("elu")
def _elu(channels: int, *, alpha: float = 1.0) -> nn.Module:
    """x for x > 0, else alpha (e^x - 1).

    Derivative: 1 for x > 0, else alpha e^x. Range: (-alpha, inf). Source: D.-A. Clevert et al., 2015.
    """
    return nn.ELU(alpha, inplace=True)


@ACTIVATIONS.register("selu")
def _selu(channels: int) -> nn.Module:
    """1.0507 elu(x), with alpha = 1.6733.

    Derivative: 1.0507 times that of elu. Range: (-1.758, inf). Source: G. Klambauer et al., 2017.
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
    """Piecewise linear in three pieces, learned per channel.

    Derivative: the slope of the piece. Range: all reals. Source: X. Jin et al., 2015.
    """
    return SReLU(channels, low, low_slope, high, high_slope)


@ACTIVATIONS.register("isru")
def _isru(channels: int, *, alpha: float = 1.0) -> nn.Module:
    """x / sqrt(1 + alpha x^2).

    Derivative: (1 + alpha x^2)^(-3/2). Range: (-1, 1) / sqrt(alpha). Source: B. Carlile et al., 2017.
    """
    return Formula(_compute_isru, alpha=alpha)


def _compute_isru(x: Tensor, *, alpha: float) -> Tensor:
    size = x.abs().clamp(min=1.0)  # factored out, since x^2 may overflow
    return x / size * torch.rsqrt(size**-2 + alpha * (x / size) ** 2)


@ACTIVATIONS.register("tanh")
def _tanh(channels: int) -> nn.Module:
    """tanh(x).

    Derivative: 1 - tanh^2(x). Range: (-1, 1). Source: Y. LeCun et al., 1998.
    """
    return nn.Tanh()


@ACTIVATIONS.register("rrelu")
def _rrelu(channels: int, *, lower: float = 1 / 8, upper: float = 1 / 3) -> nn.Module:
    """x for x > 0, else a x.

    Derivative: 1 for x > 0, else a. Range: all reals. Source: B. Xu et al., 2015.

    In training each a is drawn uniformly from [lower, upper] by torch's generator, which the run seeds
    and its checkpoints save; in evaluation a is the mean of the two.
    """
    return nn.RReLU(lower, upper)


@ACTIVATIONS.register("arctan_softplus")
def _arctan_softplus(channels: int) -> nn.Module:
    """arctan(x) softplus(x).

    Derivative: softplus(x) / (1 + x^2) + arctan(x) sigmoid(x). Range: [-0.251, inf). Source: D.
    Misra, 2019.
    """
    return Formula(_compute_arctan_softplus)


def _compute_arctan_softplus(x: Tensor) -> Tensor:
    return torch.atan(x) * functional.softplus(x)


@ACTIVATIONS.register("tanh_softplus")
def _tanh_softplus(channels: int) -> nn.Module:
    """tanh(x) softplus(x).

    Derivative: sech^2(x) softplus(x) + tanh(x) sigmoid(x). Range: [-0.247, inf). Source: D. Misra,
    2019.
    """
    return Formula(_compute_tanh_softplus)


def _compute_tanh_softplus(x: Tensor) -> Tensor:
    return torch.tanh(x) * functional.softplus(x)


@ACTIVATIONS.register("log_arctan_exp")
def _log_arctan_exp(channels: int) -> nn.Module:
    """x log(1 + arctan(E)), with E = e^x.

    Derivative: log(1 + arctan(E)) + x E / ((1 + E^2)(1 + arctan(E))). Range: [-0.308, inf). Source:
    D. Misra, 2019.
    """
    return Formula(_compute_log_arctan_exp)


def _compute_log_arctan_exp(x: Tensor) -> Tensor:
    return x * torch.log1p(torch.atan(_exp_up_to_20(x)))


@ACTIVATIONS.register("log_tanh_exp")
def _log_tanh_exp(channels: int) -> nn.Module:
    """x log(1 + tanh(E)), with E = e^x.

    Derivative: log(1 + tanh(E)) + x E sech^2(E) / (1 + tanh(E)). Range: [-0.308, inf). Source: D.
    Misra, 2019.
    """
    return Formula(_compute_log_tanh_exp)


def _compute_log_tanh_exp(x: Tensor) -> Tensor:
    return x * torch.log1p(torch.tanh(_exp_up_to_20(x)))


def _exp_up_to_20(x: Tensor) -> Tensor:
    """e^min(x, 20): above 20 arctan and tanh are constant, and the gradient would be inf times 0."""
    return x.clamp(max=20.0).exp()


@ACTIVATIONS.register("hardswish")
def _hardswish(channels: int) -> nn.Module:
    """x clip(x + 3, 0, 6) / 6.

    Derivative: 0 for x < -3, (2 x + 3) / 6 in between, 1 for x > 3. Range: [-0.375, inf). Source:
    A. Howard et al., 2019.
    """
    return nn.Hardswish(inplace=True)


@ACTIVATIONS.register("logistic", "sigmoid")
def _logistic(channels: int) -> nn.Module:
    """s = 1 / (1 + e^-x).

    Derivative: s (1 - s). Range: (0, 1). Source: P. Verhulst, 1845.
    """
    return nn.Sigmoid()


@ACTIVATIONS.register("identity", "linear")
def _identity(channels: int) -> nn.Module:
    """x.

    Derivative: 1. Range: all reals.
    """
    return nn.Identity()
