"""The module `BatchNormAct2d`: parameters and buffers for `ops.batch_norm.batch_norm_act`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, distributed, nn

from detector import ops
from detector.nn.activations import Mish, Swish
from detector.nn.checkpointing import is_recomputing

# Activations that the kernels fuse with BatchNorm, by exact type: a subclass may compute something else
_FUSIBLE: dict[type[nn.Module], Callable[[Any], ops.Activation]] = {
    nn.Identity: lambda act: ops.IDENTITY,
    nn.ReLU: lambda act: ops.leaky_relu(0.0),
    nn.LeakyReLU: lambda act: ops.leaky_relu(act.negative_slope),
    nn.SiLU: lambda act: ops.swish(1.0),
    Swish: lambda act: ops.swish(act.beta),
    Mish: lambda act: ops.MISH,
}


class BatchNormAct2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that also applies the activation after it; same parameters, buffers, keys.

    Mish, Leaky ReLU, ReLU and Swish are computed in the same pass over memory, and training saves one map
    for the backward pass where separate BatchNorm and Mish save two. Other activations run separately.

    Attributes:
        sync: in training, normalise with the statistics of all ranks of torch.distributed, as one rank
            would with the whole batch; on any device, CPUs included. Gradients of weight and bias cover
            each rank's own images, as DistributedDataParallel expects. See `synchronise_batch_norms`.
    """

    sync = False

    def forward(self, input: Tensor, act: nn.Module | None = None) -> Tensor:
        """act(batch_norm(x)), [B, C, H, W] -> the same shape, dtype and memory format.

        An activation with hooks runs separately, so that they are called; a hook on this module sees the
        output of a fused activation.
        """
        self._check_input_dim(input)
        fused = ops.IDENTITY if act is None else self._find_fused(act)
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

    def _find_fused(self, act: nn.Module) -> ops.Activation | None:
        """The activation as an argument of the kernels; None if it has hooks or no kernel."""
        hooks = (act._forward_hooks, act._forward_pre_hooks)
        hooked = any((*hooks, act._backward_hooks, act._backward_pre_hooks))
        return None if hooked or type(act) not in _FUSIBLE else _FUSIBLE[type(act)](act)

    def _count_batch(self) -> float:
        """Counts one more batch and returns its weight in the running statistics; 0 if it was counted."""
        if is_recomputing():
            return 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average over all batches
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
    """Sets `sync` of every BatchNormAct2d of a model; returns their number."""
    norms = [module for module in model.modules() if isinstance(module, BatchNormAct2d)]
    for norm in norms:
        norm.sync = sync
    return len(norms)
