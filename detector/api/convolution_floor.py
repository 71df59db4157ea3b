"""The convolutions of a network alone: the floor under a training step."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detector import ops
from detector.device import Hardware, scale_images
from detector.nn import Conv2d
from detector.structures import Batch


class Convolutions:
    """The convolutions of a network alone: the floor under its step."""

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        hardware: Hardware,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`batch` is on the host, as the loader gives it."""
        self._hardware, self._clock = hardware, clock
        shapes = Counter[tuple[Any, ...]]()
        hooks = [
            module.register_forward_pre_hook(
                lambda module, args: shapes.update([_describe_convolution(module, args[0])])
            )
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
        ]
        images = self._hardware.move(batch).images
        with torch.no_grad(), self._hardware.autocast():
            model(scale_images(images))
        for hook in hooks:
            hook.remove()
        self._calls = [(self._prepare(shape), count) for shape, count in shapes.items()]

    def measure(self) -> float:
        """Milliseconds of the forward and backward passes of all of them."""
        total = 0.0
        for call, count in self._calls:
            total += count * self._time(call)
        return 1e3 * total

    def _time(self, call: Callable[[], object]) -> float:
        if self._hardware.device.type != "cuda":
            start = self._clock()
            call()
            return self._clock() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    def _prepare(self, shape: tuple[Any, ...]) -> Callable[[], object]:
        inputs, weights, stride, padding, groups, dtype, is_first, convolve = shape
        options = {"device": self._hardware.device, "dtype": dtype}
        layout = self._hardware.memory_format
        x = torch.randn(inputs, **options).to(memory_format=layout).requires_grad_(not is_first)
        w = (torch.randn(weights, **options) / 100).to(memory_format=layout).requires_grad_()
        wanted = [w] if is_first else [x, w]  # no gradient of the images

        def call() -> object:
            y = convolve(x, w, None, stride, padding, (1, 1), groups)
            return torch.autograd.grad(y, wanted, torch.ones_like(y))

        call()
        return call


def _describe_convolution(module: Any, x: Tensor) -> tuple[Any, ...]:
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    is_first = module.in_channels == 3
    shape, weights = tuple(x.shape), tuple(module.weight.shape)
    convolve = ops.conv2d if isinstance(module, Conv2d) else torch.conv2d
    settings = module.stride, module.padding, module.groups
    return shape, weights, *settings, dtype, is_first, convolve
