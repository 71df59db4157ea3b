"""The exponential moving average (EMA) of the weights, which is evaluated and published."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Pairs = list[tuple[list[Tensor], list[Tensor]]]


class ModelEMA(AveragedModel):
    """The EMA of all parameters and buffers of a model, itself in evaluation mode in `module`.

    The decay at optimizer step n is `decay * (1 - exp(-n / warmup))`: the first steps' weights fade
    quickly. Integer buffers (counters) are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay, self.warmup = decay, warmup
        self.module.requires_grad_(False)
        self.module.eval()
        self._pairs: tuple[nn.Module, Pairs] | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Adds the weights of `model` after an optimizer step; the first time they are copied."""
        steps = int(self.n_averaged)
        current = self.decay * (1 - math.exp(-steps / self.warmup)) if steps else 0.0
        for averages, values in self._pair_tensors(model):
            if steps and averages[0].is_floating_point():
                torch._foreach_lerp_(averages, values, 1 - current)  # pyright: ignore
            else:
                torch._foreach_copy_(averages, values)  # pyright: ignore
        self.n_averaged += 1

    def _pair_tensors(self, model: nn.Module) -> Pairs:
        """The EMA's tensors and the model's, by dtype; collected once: that costs more than averaging."""
        if self._pairs is None or self._pairs[0] is not model:
            by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
            mine = itertools.chain(self.module.parameters(), self.module.buffers())
            theirs = itertools.chain(model.parameters(), model.buffers())
            for average, value in zip(mine, theirs, strict=True):
                averages, values = by_dtype.setdefault(average.dtype, ([], []))
                averages.append(average)
                values.append(value)
            self._pairs = model, list(by_dtype.values())
        return self._pairs[1]
