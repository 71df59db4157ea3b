"""The numbers by which Python and the kernels name an activation that is fused with BatchNorm."""

from enum import IntEnum


class ActivationCode(IntEnum):
    """`enum class Activation` of csrc/activations.h; tests/ops/test_activation_codes.py compares them."""

    LEAKY_RELU = 0
    MISH = 1
    SWISH = 2
