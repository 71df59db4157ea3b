"""Compiled operators and their fallbacks in torch operators; the sources are in csrc/.

Read `_mish.py` (dispatch, autograd), `batch_norm.py` (fused with an activation, synchronised over ranks),
`conv_gradient.py` (the gradient of 3x3 weights), then `_load.py` (loading, self-test, the one warning).
`python -m detector.ops` prints which implementation runs for each device and dtype.
"""

from detector.ops._load import has_kernel
from detector.ops._mish import mish, mish_
from detector.ops._table import implementation_table
from detector.ops.activation_codes import ActivationCode
from detector.ops.batch_norm import (
    IDENTITY,
    MISH,
    Activation,
    batch_norm_act,
    leaky_relu,
    swish,
)
from detector.ops.conv_gradient import conv2d

__all__ = [
    "IDENTITY",
    "MISH",
    "Activation",
    "ActivationCode",
    "batch_norm_act",
    "conv2d",
    "has_kernel",
    "implementation_table",
    "leaky_relu",
    "mish",
    "mish_",
    "swish",
]
