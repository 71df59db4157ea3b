"""Building blocks: `activations` (the registry), then `blocks` (ConvNormAct, CSP stages, SPP)."""

from detector.nn.activations import ACTIVATIONS, ActFactory, Mish, activation
from detector.nn.blocks import (
    BatchNormSettings,
    ConvNormAct,
    CSPBlock,
    CSPStage,
    Residual,
    SPPBlock,
)

__all__ = [
    "ACTIVATIONS",
    "ActFactory",
    "BatchNormSettings",
    "CSPBlock",
    "CSPStage",
    "ConvNormAct",
    "Mish",
    "Residual",
    "SPPBlock",
    "activation",
]
