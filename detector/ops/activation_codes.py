"""The codes by which Python and the kernels identify an activation that is fused with BatchNorm."""

from enum import IntEnum


class ActivationCode(IntEnum):
    """Equal to `enum class Activation` of csrc/activations.h: tests/ops/test_activation_codes.py."""

    LEAKY_RELU = 0
    MISH = 1
    SWISH = 2
