"""Compiled operators and their fall-back on torch's own; the sources are in csrc/.

Read `_mish.py` (routing, autograd), `bn_mish.py` (fused with BatchNorm), then `_load.py` (loading,
the one warning). `python -m detector.ops` prints what runs for which device and dtype.
"""

from detector.ops._load import compiled
from detector.ops._mish import mish, mish_
from detector.ops._table import implementation_table
from detector.ops.bn_mish import batch_norm_mish

__all__ = ["batch_norm_mish", "compiled", "implementation_table", "mish", "mish_"]
