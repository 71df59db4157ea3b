"""The module `Conv2d`: `nn.Conv2d` whose weights get their gradients from `ops.conv2d`."""

from torch import Tensor, nn

from detector import ops


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`; same parameters and keys, results equal to rounding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        return ops.conv2d(
            input, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )
