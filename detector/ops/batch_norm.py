"""BatchNorm and the activation after it in one: fewer passes over memory, and only x kept for the
backward pass.

Four steps, which csrc/bn_act_operators.h defines: statistics, apply, reduce, apply backward. They run
as compiled kernels on float32, bfloat16 or float16 maps with float32 parameters, contiguous or
channels_last, on the CPU and on CUDA; what has no kernel runs torch's batch_norm, then the activation.
Several processes share their statistics between the steps; without kernels the steps are then torch's
operators, on any device and dtype. The kernels' results do not depend on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from detector.ops import _load
from detector.ops._mish import match_layout, mish, needs_torch_operators, rational_mish


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation that the kernels know, by csrc/activations.h's number, and its one parameter."""

    number: int
    parameter: float = 0.0

    def __call__(self, y: Tensor) -> Tensor:
        """The activation by itself; any shape."""
        return _FUNCTIONS[self.number](y, self.parameter)


def leaky_relu(negative_slope: float) -> Activation:
    """max(y, slope y) for slopes in [0, 1]; slope 0 is ReLU."""
    return Activation(0, negative_slope)


def swish(beta: float) -> Activation:
    """Y sigmoid(beta y)."""
    return Activation(2, beta)


IDENTITY = leaky_relu(1.0)
MISH = Activation(1)

_FUNCTIONS: dict[int, Callable[[Tensor, float], Tensor]] = {
    0: lambda y, slope: y if slope == 1.0 else functional.leaky_relu(y, slope),
    1: lambda y, _: mish(y),
    2: lambda y, beta: functional.silu(y) if beta == 1.0 else y * torch.sigmoid(beta * y),
}


def batch_norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    activation: Activation = IDENTITY,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """activation(batch_norm(x)), as torch.nn.functional.batch_norm defines it.

    Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015.

    Args:
        x: [B, C, H, W], or any shape that batch_norm takes. Shared statistics take an empty batch, too.
        weight: [C] or None.
        bias: [C] or None.
        running_mean: [C] or None; updated in training.
        running_var: [C] or None; updated in training, with the variance over n - 1.
        activation: MISH, IDENTITY, `leaky_relu(slope)` or `swish(beta)`.
        momentum: weight of this batch in the running statistics, in [0, 1].
        eps: added to the variance.
        training: whether this batch's statistics are used, or the running ones.
        group: in training, the processes whose batches count as one. Each gets the gradients of weight
            and bias of its own part: their sum is that of the whole batch.

    Returns:
        The shape, dtype and memory format of x.

    Raises:
        ValueError: in training, only one value a channel.
    """
    if running_mean is None or running_var is None:
        training = True  # there is nothing else to normalise with
    shared = training and group is not None and distributed.get_world_size(group) > 1
    kernels = _fusible(x, weight, bias, running_mean, running_var)
    if not (kernels or shared):
        return activation(
            functional.batch_norm(
                x, running_mean, running_var, weight, bias, training, momentum, eps
            )
        )
    x = _in_memory_format(x) if kernels else x
    weight = x.new_ones(x.shape[1], dtype=_wide_dtype(x)) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    steps = torch.ops.detector_ops if kernels else _TorchSteps
    how = _How(activation, eps, training, group if shared else None, steps)
    with torch.no_grad():
        if training:
            mean, var, count = how.statistics(x)
            if shared:  # nothing in any process changes nothing
                momentum = momentum * (count > 1).to(mean.dtype)
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                bessel = count / (count - 1).clamp(min=1) if shared else count / (count - 1)
                running_var.lerp_((var * bessel).to(running_var.dtype), momentum)
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, var, count = running_mean, running_var, None
        rstd = (var + eps).rsqrt_()
    return _BatchNormAct.apply(x, weight, bias, mean, rstd, count, how)


@dataclass(frozen=True, slots=True)
class _How:
    """What the two halves of a call have to agree on."""

    activation: Activation
    eps: float
    training: bool
    group: distributed.ProcessGroup | None  # None: this process's batch alone
    steps: Any  # torch.ops.detector_ops or _TorchSteps

    @property
    def act(self) -> tuple[int, float]:
        """The activation as the steps take it."""
        return self.activation.number, self.activation.parameter

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Mean and variance [C], and the count a channel: a number, or a tensor [1] if shared."""
        count = x.numel() // x.shape[1]
        if count:
            mean, var = self.steps.bn_stats(x)
        else:
            mean = var = x.new_zeros(x.shape[1], dtype=_wide_dtype(x))
        return (mean, var, count) if self.group is None else _merged(mean, var, count, self.group)

    def means(self, sums: tuple[Tensor, ...], count: Any) -> tuple[tuple[Tensor, ...], int]:
        """Sums over this process's batch -> those over all of it, and what divides them."""
        if count is None:  # the statistics did not depend on x
            return tuple(torch.zeros_like(value) for value in sums), 1
        if self.group is None:
            return sums, count
        total = _gathered(torch.cat(sums), self.group).sum(0) / count
        return tuple(part.to(sums[0].dtype) for part in total.chunk(2)), 1


def _merged(mean: Tensor, var: Tensor, count: int, group: distributed.ProcessGroup) -> Any:
    """The statistics of all processes, in double and in the order of ranks: bit-equal on each.

    Source: T. Chan, G. Golub and R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances", 1979.
    """
    parts = _gathered(torch.cat([mean, var, mean.new_tensor([count])]), group)
    means, variances, counts = parts.split([len(mean), len(mean), 1], 1)
    total = counts.sum(0).clamp(min=1)
    merged = (means * counts).sum(0) / total
    squares = ((variances + (means - merged).square()) * counts).sum(0) / total
    return merged.to(mean.dtype), squares.to(mean.dtype), total


def _gathered(values: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """[n] of each process -> [processes, n] in double. Not all_reduce: its order of adding is its own."""
    own = values.double()
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, own, group)
    return torch.stack(parts)


class _BatchNormAct(torch.autograd.Function):
    """Apply, reduce and apply backward; the statistics are inputs whose own gradients are in grad_x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        rstd: Tensor,
        count: Any,
        how: _How,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.count, ctx.how = count, how
        if x.numel() == 0:
            return torch.empty_like(x)
        return how.steps.bn_act_apply(x, mean, rstd, weight, bias, *how.act)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        how, steps = ctx.how, ctx.how.steps
        if (
            torch.is_grad_enabled() or needs_torch_operators()
        ):  # it will be differentiated, or is batched
            return (*_differentiable_backward(ctx, grads[0]), None, None, None, None)
        grad, grad_x = match_layout(grads[0], x), torch.empty_like(x)
        given = (grad, x, mean, rstd, weight, bias, *how.act)
        if x.numel() == 0:
            sums = torch.zeros_like(mean), torch.zeros_like(mean)
        else:
            sums = steps.bn_act_backward_reduce(*given, grad_x)
        if ctx.needs_input_grad[0]:
            means, count = how.means(sums, ctx.count)  # with an empty batch, too: the others wait
            if x.numel():
                steps.bn_act_backward_apply_(*given, *means, count, grad_x)
        else:
            grad_x = None
        return grad_x, sums[1], sums[0], None, None, None, None


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias as a graph of torch operators."""
    x, weight, bias, mean, rstd = ctx.saved_tensors
    how = ctx.how
    if how.group is not None:
        raise RuntimeError(
            "BatchNorm with the statistics of several processes has no second derivative; use one "
            "process, or its own statistics in each (sync = False)"
        )
    if how.training:
        normed = functional.batch_norm(x, None, None, weight, bias, True, 0.0, how.eps)
    else:
        var = rstd.pow(-2) - how.eps
        normed = functional.batch_norm(x, mean, var, weight, bias, False, 0.0, how.eps)
    z = rational_mish(normed) if how.activation == MISH else how.activation(normed)
    inputs = [
        v for v, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed
    ]
    found = iter(torch.autograd.grad(z, inputs, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad[:3])


class _TorchSteps:
    """The four operators of csrc/bn_act_operators.h as torch has them: any device, dtype and layout."""

    @staticmethod
    def bn_stats(x: Tensor) -> tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(x.to(_wide_dtype(x)), _all_but_channels(x), correction=0)
        return mean, var

    @staticmethod
    def bn_act_apply(
        x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, *act: Any
    ) -> Tensor:
        y = _centred(x, mean) * _per_channel(weight * rstd, x) + _per_channel(bias, x)
        return Activation(*act)(y).to(x.dtype)

    @staticmethod
    def bn_act_backward_reduce(
        grad: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
        bias: Tensor,
        number: int,
        parameter: float,
        grad_x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        centred = _centred(x, mean)
        with torch.enable_grad():
            y = centred * _per_channel(weight * rstd, x) + _per_channel(bias, x)
            y = y.detach().requires_grad_()
            (dy,) = torch.autograd.grad(Activation(number, parameter)(y), y, grad.to(y.dtype))
        grad_x.copy_(dy)  # what the next step finds
        dims = _all_but_channels(x)
        return dy.sum(dims), (dy * centred).sum(dims) * rstd

    @staticmethod
    def bn_act_backward_apply_(
        grad: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
        bias: Tensor,
        number: int,
        parameter: float,
        sum_dy: Tensor,
        sum_dy_xhat: Tensor,
        count: int,
        grad_x: Tensor,
    ) -> None:
        slope = _per_channel(sum_dy_xhat * rstd / count, x)
        dy = grad_x - _per_channel(sum_dy / count, x) - _centred(x, mean) * slope
        grad_x.copy_(dy * _per_channel(weight * rstd, x))


def _wide_dtype(x: Tensor) -> torch.dtype:
    """Of statistics: float32, for float64 float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] so that it meets the channels of x [B, C, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    return x.to(_wide_dtype(x)) - _per_channel(mean, x)


def _fusible(x: Tensor, *channel_values: Tensor | None) -> bool:
    """Whether the compiled kernels take these; [B, C, H, W] and [C] each."""
    return (
        x.dim() == 4
        and x.numel() > x.shape[1]  # else torch's own says what is wrong
        and not needs_torch_operators()
        and _load.has_kernel("batch_norm_act", x)
        and all(
            v is None
            or (
                v.dtype == torch.float32
                and v.device == x.device
                and v.is_contiguous()
                and v.shape == x.shape[1:2]
            )
            for v in channel_values
        )
    )


def _in_memory_format(x: Tensor) -> Tensor:
    """Copies x [B, C, H, W] to contiguous if it is neither that nor channels_last."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()
