"""The function behind `nn.batch_norm.BatchNormAct2d`: BatchNorm fused with the activation after it.

It makes fewer passes over memory, and saves only x for the backward pass. It has four steps, defined in
csrc/bn_act_operators.h: statistics, apply, reduce, apply backward. They run as compiled kernels on
float32, bfloat16 or float16 maps with float32 parameters, contiguous or channels_last, on the CPU and on
CUDA; other inputs run torch's batch_norm, then the activation. If ranks share statistics, they exchange
them between the steps, and where there is no kernel each step runs torch's operators, on any device and
dtype. The kernels' results do not depend on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from detector.ops import _load
from detector.ops._mish import match_layout, mish, needs_torch_operators, rational_mish
from detector.ops.activation_codes import ActivationCode


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation that the kernels fuse, with its one parameter: a negative slope or a beta."""

    code: ActivationCode
    parameter: float = 0.0

    def __call__(self, y: Tensor) -> Tensor:
        """The activation by torch's operators or the Mish kernel; any shape."""
        return _FUNCTIONS[self.code](y, self.parameter)


def leaky_relu(negative_slope: float) -> Activation:
    """max(y, slope y) for slopes in [0, 1]; slope 0 is ReLU."""
    return Activation(ActivationCode.LEAKY_RELU, negative_slope)


def swish(beta: float) -> Activation:
    """y sigmoid(beta y)."""
    return Activation(ActivationCode.SWISH, beta)


IDENTITY = leaky_relu(1.0)
MISH = Activation(ActivationCode.MISH)

_FUNCTIONS: dict[ActivationCode, Callable[[Tensor, float], Tensor]] = {
    ActivationCode.LEAKY_RELU: lambda y, slope: (
        y if slope == 1.0 else functional.leaky_relu(y, slope)
    ),
    ActivationCode.MISH: lambda y, _: mish(y),
    ActivationCode.SWISH: lambda y, beta: (
        functional.silu(y) if beta == 1.0 else y * torch.sigmoid(beta * y)
    ),
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
        x: [B, C, H, W], or any shape that batch_norm takes; with a group the batch may be empty.
        weight, bias: [C] or None.
        running_mean: [C] or None; updated in training.
        running_var: [C] or None; updated in training, with the variance over n - 1.
        activation: MISH, IDENTITY, `leaky_relu(slope)` or `swish(beta)`.
        momentum: weight of this batch in the running statistics, in [0, 1].
        eps: added to the variance.
        training: normalise with the statistics of this batch instead of the running ones.
        group: in training, the ranks whose batches are normalised as one. Each gets the gradients of
            weight and bias over its own images: their sum is the gradient over the joined batch.

    Returns:
        The shape, dtype and memory format of x.

    Raises:
        ValueError: in training, if there is only one value per channel.
    """
    if running_mean is None or running_var is None:
        training = True  # there are no running statistics to normalise with
    synced = training and group is not None and distributed.get_world_size(group) > 1
    use_kernels = _can_fuse(x, weight, bias, running_mean, running_var)
    if not (use_kernels or synced):
        return activation(
            functional.batch_norm(
                x, running_mean, running_var, weight, bias, training, momentum, eps
            )
        )
    x = _to_memory_format(x) if use_kernels else x
    weight = x.new_ones(x.shape[1], dtype=_wide_dtype(x)) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    steps = torch.ops.detector_ops if use_kernels else _TorchSteps
    plan = _Plan(activation, eps, training, group if synced else None, steps)
    with torch.no_grad():
        if training:
            mean, var, count = plan.compute_statistics(x)
            _update_running(running_mean, running_var, mean, var, count, momentum)
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, var, count = running_mean, running_var, None
        rstd = (var + eps).rsqrt_()
    return _BatchNormAct.apply(x, weight, bias, mean, rstd, count, plan)


def _update_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: Any,
    momentum: Any,
) -> None:
    """Updates the running statistics [C]; `count` is a tensor where ranks share their statistics."""
    synced = isinstance(count, Tensor)
    if synced:  # no image on any rank: no update
        momentum = momentum * (count > 1).to(mean.dtype)
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        bessel = count / (count - 1).clamp(min=1) if synced else count / (count - 1)
        running_var.lerp_((var * bessel).to(running_var.dtype), momentum)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one call is computed: common to its forward and backward pass."""

    activation: Activation
    eps: float
    training: bool
    group: distributed.ProcessGroup | None  # None: the statistics of this rank alone
    steps: Any  # torch.ops.detector_ops or _TorchSteps

    @property
    def act(self) -> dict[str, int | float]:
        """The activation as keywords of the steps."""
        return {"activation": int(self.activation.code), "parameter": self.activation.parameter}

    def compute_statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Mean and variance [C], and elements per channel: an int, or a tensor [1] over all ranks."""
        count = x.numel() // x.shape[1]
        if count:
            mean, var = self.steps.bn_stats(x)
        else:
            mean = var = x.new_zeros(x.shape[1], dtype=_wide_dtype(x))
        if self.group is None:
            return mean, var, count
        return _merge_statistics(mean, var, count, self.group)

    def sum_over_ranks(
        self, sums: tuple[Tensor, ...], count: Any
    ) -> tuple[tuple[Tensor, ...], int]:
        """The sums of dy and dy * xhat over the batches of all ranks, and their divisor."""
        if count is None:  # the statistics did not depend on x
            return tuple(torch.zeros_like(value) for value in sums), 1
        if self.group is None:
            return sums, count
        total = _gather(torch.cat(sums), self.group).sum(0) / count
        return tuple(part.to(sums[0].dtype) for part in total.chunk(2)), 1


def _merge_statistics(
    mean: Tensor, var: Tensor, count: int, group: distributed.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """Merges the statistics of all ranks in float64 and in rank order: bit-identical on each rank.

    Source: T. Chan, G. Golub and R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances", 1979.
    """
    parts = _gather(torch.cat([mean, var, mean.new_tensor([count])]), group)
    means, variances, counts = parts.split([len(mean), len(mean), 1], 1)
    total = counts.sum(0).clamp(min=1)
    merged = (means * counts).sum(0) / total
    squares = ((variances + (means - merged).square()) * counts).sum(0) / total
    return merged.to(mean.dtype), squares.to(mean.dtype), total


def _gather(values: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """[n] of each rank -> [ranks, n] in float64. Not all_reduce, whose order of summation may vary."""
    own = values.double()
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, own, group)
    return torch.stack(parts)


class _BatchNormAct(torch.autograd.Function):
    """Apply, reduce and apply backward; grad_x includes the gradient through the statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        rstd: Tensor,
        count: Any,
        plan: _Plan,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.count, ctx.plan = count, plan
        if x.numel() == 0:
            return torch.empty_like(x)
        values = {"mean": mean, "rstd": rstd, "weight": weight, "bias": bias}
        return plan.steps.bn_act_apply(x, **values, **plan.act)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        plan, steps = ctx.plan, ctx.plan.steps
        if torch.is_grad_enabled() or needs_torch_operators():  # second derivatives, or vmap
            return (*_differentiable_backward(ctx, grads[0]), None, None, None, None)
        grad, grad_x = match_layout(grads[0], x), torch.empty_like(x)
        values = {"grad": grad, "x": x, "mean": mean, "rstd": rstd, "weight": weight, "bias": bias}
        values |= {**plan.act, "grad_x": grad_x}
        if x.numel() == 0:
            sums = torch.zeros_like(mean), torch.zeros_like(mean)
        else:
            sums = steps.bn_act_backward_reduce(**values)
        if ctx.needs_input_grad[0]:
            # also with an empty batch: the other ranks wait for this one
            (sum_dy, sum_dy_xhat), count = plan.sum_over_ranks(sums, ctx.count)
            if x.numel():
                steps.bn_act_backward_apply_(
                    **values, sum_dy=sum_dy, sum_dy_xhat=sum_dy_xhat, count=count
                )
        else:
            grad_x = None
        return grad_x, sums[1], sums[0], None, None, None, None


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias as a graph of torch operators."""
    x, weight, bias, mean, rstd = ctx.saved_tensors
    plan = ctx.plan
    if plan.group is not None:
        raise RuntimeError(
            "BatchNorm with statistics shared by several ranks has no second derivative; train on one "
            "rank, or use each rank's own statistics (sync = False)"
        )
    if plan.training:
        normed = functional.batch_norm(x, None, None, weight, bias, True, 0.0, plan.eps)
    else:
        var = rstd.pow(-2) - plan.eps
        normed = functional.batch_norm(x, mean, var, weight, bias, False, 0.0, plan.eps)
    z = rational_mish(normed) if plan.activation == MISH else plan.activation(normed)
    inputs = [
        v for v, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed
    ]
    gradients = iter(torch.autograd.grad(z, inputs, grad, create_graph=True))
    return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad[:3])


class _TorchSteps:
    """The four operators of csrc/bn_act_operators.h in torch operators: any device, dtype and layout."""

    @staticmethod
    def bn_stats(x: Tensor) -> tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(x.to(_wide_dtype(x)), _all_but_channels(x), correction=0)
        return mean, var

    @staticmethod
    def bn_act_apply(
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
        bias: Tensor,
        activation: int,
        parameter: float,
    ) -> Tensor:
        y = _subtract_mean(x, mean) * _per_channel(weight * rstd, x) + _per_channel(bias, x)
        return Activation(ActivationCode(activation), parameter)(y).to(x.dtype)

    @staticmethod
    def bn_act_backward_reduce(
        grad: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
        bias: Tensor,
        activation: int,
        parameter: float,
        grad_x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        centred = _subtract_mean(x, mean)
        with torch.enable_grad():
            y = centred * _per_channel(weight * rstd, x) + _per_channel(bias, x)
            y = y.detach().requires_grad_()
            z = Activation(ActivationCode(activation), parameter)(y)
            (dy,) = torch.autograd.grad(z, y, grad.to(y.dtype))
        grad_x.copy_(dy)  # read by bn_act_backward_apply_
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
        activation: int,
        parameter: float,
        sum_dy: Tensor,
        sum_dy_xhat: Tensor,
        count: int,
        grad_x: Tensor,
    ) -> None:
        slope = _per_channel(sum_dy_xhat * rstd / count, x)
        dy = grad_x - _per_channel(sum_dy / count, x) - _subtract_mean(x, mean) * slope
        grad_x.copy_(dy * _per_channel(weight * rstd, x))


def _wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype of statistics: float64 for float64 maps, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes [C] to broadcast against x [B, C, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _subtract_mean(x: Tensor, mean: Tensor) -> Tensor:
    return x.to(_wide_dtype(x)) - _per_channel(mean, x)


def _can_fuse(x: Tensor, *channel_values: Tensor | None) -> bool:
    """Whether the compiled kernels accept these: x [B, C, H, W], the others [C] or None."""
    return (
        x.dim() == 4
        and x.numel() > x.shape[1]  # else torch's batch_norm raises the error
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


def _to_memory_format(x: Tensor) -> Tensor:
    """Copies x [B, C, H, W] to contiguous if it is neither that nor channels_last."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()
