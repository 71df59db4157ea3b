"""BatchNorm that computes the activation after it at the same time, and over several processes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, distributed, nn

from detector import ops
from detector.nn.activations import Mish, Swish

# What has one kernel with BatchNorm. By exact type: a subclass may compute something else.
_FUSED: dict[type[nn.Module], Callable[[Any], ops.Activation]] = {
    nn.Identity: lambda act: ops.IDENTITY,
    nn.ReLU: lambda act: ops.leaky_relu(0.0),
    nn.LeakyReLU: lambda act: ops.leaky_relu(act.negative_slope),
    nn.SiLU: lambda act: ops.swish(1.0),
    Swish: lambda act: ops.swish(act.beta),
    Mish: lambda act: ops.MISH,
}


class BatchNormAct2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, with its parameters, buffers and state-dict keys, to be called with the
    activation that follows.

    Mish, leaky_relu, relu and swish are computed in the same pass over memory, and in training keep one
    map for the backward pass where BatchNorm and Mish keep two; every other activation runs after it.

    Attributes:
        sync: in training, normalise with the statistics of all processes of torch.distributed, which
            then train as one process on the joined batch would; on any device, CPUs included. Gradients
            of weight and bias are of each process's part, as DistributedDataParallel expects them.
            See `synchronise_batch_norms`.
    """

    sync = False

    def forward(self, input: Tensor, act: nn.Module | None = None) -> Tensor:
        """act(batch_norm(x)), [B, C, H, W] -> the same shape, dtype and memory format.

        An activation that somebody has hung a hook on runs by itself, so that the hook sees it; a hook on
        this module sees what is behind the activation.
        """
        self._check_input_dim(input)
        fused = ops.IDENTITY if act is None else self._fused(act)
        x = ops.batch_norm_act(
            input,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            fused or ops.IDENTITY,
            momentum=self._count_batch() if self.training else 0.0,
            eps=self.eps,
            training=self.training,
            group=self._group(),
        )
        return x if act is None or fused is not None else act(x)

    def _fused(self, act: nn.Module) -> ops.Activation | None:
        hooks = (act._forward_hooks, act._forward_pre_hooks)
        hooked = any((*hooks, act._backward_hooks, act._backward_pre_hooks))
        return None if hooked or type(act) not in _FUSED else _FUSED[type(act)](act)

    def _count_batch(self) -> float:
        """Counts one more batch; the weight that it has in the running statistics."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the plain average over all batches so far
                return 1.0 / float(self.num_batches_tracked)
        return self.momentum or 0.0

    def _group(self) -> distributed.ProcessGroup | None:
        if (
            self.sync
            and self.training
            and distributed.is_available()
            and distributed.is_initialized()
        ):
            return distributed.group.WORLD
        return None


def synchronise_batch_norms(model: nn.Module, sync: bool = True) -> int:
    """Sets `sync` of every BatchNormAct2d of a model; returns how many there are."""
    norms = [module for module in model.modules() if isinstance(module, BatchNormAct2d)]
    for norm in norms:
        norm.sync = sync
    return len(norms)
