"""Building blocks: `activations` (the registry), `blocks` (ConvNormAct, CSP stages, SPP), `dropblock`,
`checkpointing`, `fuse`, `initialise`.
"""

from detector.nn.activations import ACTIVATIONS, ActFactory, Mish, activation
from detector.nn.batch_norm import BatchNormAct2d, synchronise_batch_norms
from detector.nn.blocks import (
    BatchNormSettings,
    ConvNormAct,
    CSPBlock,
    CSPStage,
    Residual,
    SpatialPyramidPooling,
    SPPBlock,
    TinyStage,
    conv_stack,
)
from detector.nn.checkpointing import use_checkpointing
from detector.nn.convolution import Conv2d
from detector.nn.curves import compute_curves
from detector.nn.dropblock import DropBlock2d
from detector.nn.fuse import fuse_batch_norms
from detector.nn.initialise import INITIALISERS, initialise_weights
from detector.nn.weighted_sum import WeightedSum

__all__ = [
    "ACTIVATIONS",
    "ActFactory",
    "BatchNormAct2d",
    "BatchNormSettings",
    "CSPBlock",
    "CSPStage",
    "Conv2d",
    "ConvNormAct",
    "DropBlock2d",
    "INITIALISERS",
    "Mish",
    "SpatialPyramidPooling",
    "Residual",
    "SPPBlock",
    "TinyStage",
    "WeightedSum",
    "activation",
    "compute_curves",
    "fuse_batch_norms",
    "initialise_weights",
    "conv_stack",
    "synchronise_batch_norms",
    "use_checkpointing",
]
