"""BatchNorm folded into the convolutions before it, for inference."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.nn.blocks import ConvNormAct


def fuse_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of a model in evaluation mode whose ConvNormAct have no BatchNorm any more.

    Its convolutions have biases instead; outputs agree to 1e-4, state-dict keys differ.
    """
    assert not model.training, "running statistics are folded: call model.eval() first"
    fused = copy.deepcopy(model)
    for module in fused.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return fused
