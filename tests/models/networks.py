"""Networks for tests: on the meta device, with random statistics, and small ones of the same topology."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from detector.build import build_network, default_num_classes
from detector.config import ModelConfig
from detector.models import CSPDarknet, PyramidClassifier, Variant
from detector.models.csp_resnet import CSPResNet
from detector.models.peleenet import PeleeNet
from detector.models.small_cnn import SixLayerCNN
from detector.models.small_nets import FullyConnected, SimpleNet, SmallResNet
from detector.models.spinenet import SpineNet

# keywords that make a backbone narrow
NARROW = {
    CSPResNet: {
        "stem": 8,
        "branches": (8, 12, 16, 24),
        "hidden": (4, 4, 8, 8),
        "channels": (8, 12, 16, 24),
        "depths": (1, 1, 2, 1),
        "groups": 2,
    },
    PeleeNet: {"stem": 8, "growth": 8, "depths": (1, 1, 2, 1)},
    SixLayerCNN: {"channels": (8, 12, 16)},
    SmallResNet: {"channels": (4, 6, 8, 10)},
    SimpleNet: {"width": 0.1},
    FullyConnected: {"width": 16, "depth": 2},
    SpineNet: {"stem": 8, "width": 1 / 16, "channels": 12},
}


def build_on_meta(arch: str, classes: int | None = None, **settings) -> nn.Module:
    """A network without values; by default with the number of classes of its published weights."""
    config = ModelConfig(arch=arch, **settings)
    with torch.device("meta"):
        return build_network(config, classes or default_num_classes(config))


def randomize_norms(model: nn.Module) -> nn.Module:
    """Draws running statistics and affine parameters at random; sets evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def shrink(variant: Variant) -> Variant:
    """The same blocks in the same order, with few channels and few residual units."""
    if variant.backbone is None:
        return variant
    if variant.halves:  # yolov4-tiny
        return replace(
            variant,
            backbone=partial(variant.backbone, stem=(8, 16)),
            neck=partial(variant.neck, width=32),
            head=partial(variant.head, hidden=(16, 24)),
        )
    if variant.backbone.func in NARROW:
        narrow = partial(variant.backbone, **NARROW[variant.backbone.func])
        network = variant.network
        if network is not None:  # a classifier of all levels
            (backbone,) = network.args
            network = partial(PyramidClassifier, partial(backbone, **NARROW[variant.backbone.func]))
        return replace(variant, backbone=narrow, network=network)
    small = {
        "stem": 8,
        "channels": (8, 16, 24, 32, 40),
        "stage1_hidden": 4,
        "depths": (1, 1, 2, 1, 1),
    }
    assert variant.backbone.func is CSPDarknet
    neck = None if variant.neck is None else partial(variant.neck, width=32)
    return replace(variant, backbone=partial(variant.backbone, **small), neck=neck)
