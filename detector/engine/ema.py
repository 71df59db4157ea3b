"""The exponential moving average (EMA) of the weights, which is evaluated and published."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class ModelEMA(AveragedModel):
    """The EMA of all parameters and buffers of a model, itself in evaluation mode in `module`.

    The decay at optimizer step n is `decay * (1 - exp(-n / warmup))`: the first steps' weights fade
    quickly. Integer buffers (counters) are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: float) -> None:
        def average(averages: list[Tensor], values: list[Tensor], num_updates: Tensor) -> None:
            current = decay * (1 - math.exp(-float(num_updates) / warmup))
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, values, 1 - current)  # pyright: ignore
            else:
                torch._foreach_copy_(averages, values)  # pyright: ignore

        super().__init__(model, multi_avg_fn=average, use_buffers=True)  # pyright: ignore
        self.module.requires_grad_(False)
        self.module.eval()
