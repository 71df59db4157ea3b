"""Compiled operators and their fall-back on torch's own; the sources are in csrc/.

Read `_mish.py` (routing, autograd), `batch_norm.py` (with an activation, over several processes), then
`_load.py` (loading, the one warning). `python -m detector.ops` prints what runs for which device and
dtype.
"""

from detector.ops._load import has_kernel
from detector.ops._mish import mish, mish_
from detector.ops._table import implementation_table
from detector.ops.batch_norm import IDENTITY, MISH, Activation, batch_norm_act, leaky_relu, swish

__all__ = [
    "IDENTITY",
    "MISH",
    "Activation",
    "batch_norm_act",
    "has_kernel",
    "implementation_table",
    "leaky_relu",
    "mish",
    "mish_",
    "swish",
]
