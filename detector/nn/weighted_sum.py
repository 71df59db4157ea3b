"""Multi-input weighted residual connections (MiWRC)."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

Weighting = Literal["none", "per_layer", "per_channel"]
EPS = 1e-4  # added to the sum of the weights, as in EfficientDet


class WeightedSum(nn.Module):
    """The sum of two maps, or their weighted mean with learned weights.

    w_i = relu(v_i) / (relu(v_1) + relu(v_2) + 1e-4), with v = 1 at first: the mean. Source: Tan et al.,
    "EfficientDet", 2020, fast normalised fusion; used as MiWRC by Bochkovskiy et al., "YOLOv4", 2020,
    section 3.4, in the backbone's residual sums (darknet: weights_type=per_feature or per_channel,
    weights_normalization=relu).

    Attributes:
        values: [2] or [2 channels], v, without weight decay as all vectors; None for the plain sum, which
            has no state.
    """

    def __init__(self, channels: int, weighting: str = "none") -> None:
        """`weighting`: none, per_layer (one weight for each map), or per_channel."""
        super().__init__()
        assert weighting in ("none", "per_layer", "per_channel"), weighting
        self.values: nn.Parameter | None = None
        if cast(Weighting, weighting) != "none":
            width = channels if weighting == "per_channel" else 1
            self.values = nn.Parameter(torch.ones(2 * width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, channels, H, W] twice -> the same shape."""
        if self.values is None:
            return x + y
        weights = torch.relu(self.values).view(2, -1, 1, 1)
        weights = (weights / (weights.sum(0) + EPS)).to(x.dtype)
        return weights[0] * x + weights[1] * y

    def extra_repr(self) -> str:
        """The number of weights."""
        return "" if self.values is None else f"weights={len(self.values)}"
