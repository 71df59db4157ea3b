"""Folds BatchNorm into the convolution before it, for inference."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.nn.blocks import ConvNormAct


def fuse_batch_norms(model: nn.Module) -> nn.Module:
    """Copies a model in evaluation mode and folds every BatchNorm into the convolution before it.

    The convolutions get biases; outputs agree to 1e-4, the keys of the state dict differ.
    """
    assert not model.training, "running statistics are folded: call model.eval() first"
    fused = copy.deepcopy(model)
    for module in fused.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return fused
