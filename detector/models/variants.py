"""The networks as data, one row each; widths and depths are keywords of the constructors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from detector.models.adopted import ADOPTED, AdoptedClassifier
from detector.models.backbone import CSPDarknet, TinyDarknet
from detector.models.capsnet import CapsNet
from detector.models.classifier import Classifier, PyramidClassifier
from detector.models.csp_resnet import CSPResNet
from detector.models.head import YOLOHead
from detector.models.neck import CSPPANet, Neck, PANet, TinyNeck, YOLOv3Neck
from detector.models.peleenet import PeleeNet
from detector.models.small_cnn import SixLayerCNN
from detector.models.small_nets import FullyConnected, SimpleNet, SmallResNet
from detector.models.spinenet import SpineNet

Anchors = tuple[tuple[tuple[float, float], ...], ...]

# (width, height) in pixels at strides 8, 16, 32, for every published network except tiny
YOLOV4_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
# strides 16, 32; 81,82 occurs twice and 10,14 never: a mistake in the cfg that the weights rely on
TINY_ANCHORS: Anchors = (
    ((23, 27), (37, 58), (81, 82)),
    ((81, 82), (135, 169), (344, 319)),
)
MIWRC = ("miwrc",)  # keys of networks with residual sums
CSP_ORDERS = ("pacsp", "csp")  # heads between the neck's parts, or all at the end of the file


@dataclass(frozen=True, slots=True)
class Variant:
    """One network.

    Attributes:
        backbone: its constructor with every argument bound except `act` and `norm`; None for a classifier
            that has none of its own.
        neck: its constructor likewise, called with the backbone's channels first; None for a classifier.
        head: its constructor likewise, called with the neck's channels first.
        anchors: by level, finest first.
        scale_x_y: by level, the scale with which darknet's cfg of this network decodes centres.
        darknet_size: how darknet's cfg decodes sizes: "sigmoid", (2s)^2, or "exp".
        orders: the orders of its weight files, the usual one first, none without darknet files; see
            `darknet_weights`.
        halves: whether its backbone splits channels into halves and accepts `first_half`.
        network: the constructor of a classifier that is not `BackboneClassifier` of this backbone, with
            every argument bound except `num_classes`, `act` and `norm`.
        accepts: further keywords of its constructor, keys of `ModelConfig` that other networks refuse.
    """

    backbone: Callable[..., nn.Module] | None = None
    neck: Callable[..., Neck] | None = None
    head: Callable[..., YOLOHead] = YOLOHead
    anchors: Anchors = YOLOV4_ANCHORS
    scale_x_y: tuple[float, ...] = (2.0, 2.0, 2.0)
    darknet_size: str = "sigmoid"
    orders: tuple[str, ...] = ("darknet",)
    halves: bool = False
    network: Callable[..., Classifier] | None = None
    accepts: tuple[str, ...] = ()


def _pacsp(backbone: dict[str, Any], neck: dict[str, Any]) -> Variant:
    return Variant(
        partial(CSPDarknet, **backbone),
        partial(CSPPANet, **neck),
        orders=CSP_ORDERS,
        accepts=MIWRC,
    )


# CSP-DarkNet-53 with a CSP first stage: the backbone of yolov4, and of the ImageNet classifier
_CSPDARKNET53 = partial(CSPDarknet, stage1_csp=True)

VARIANTS = {
    # not published: a smaller -s that trains on two CPU cores in minutes
    "yolov4-pacsp-n": _pacsp(
        {
            "stem": 8,
            "channels": (16, 32, 64, 128, 192),
            "stage1_hidden": 8,
            "depths": (1, 1, 1, 1, 1),
        },
        {"width": 96, "depth": 1, "spp_before": (1,), "spp_after": (1, 3)},
    ),
    "yolov4-pacsp-s": _pacsp(
        {
            "stem": 32,
            "channels": (32, 64, 128, 256, 512),
            "stage1_hidden": 32,  # not 16: as published
            "depths": (1, 1, 1, 1, 1),
        },
        {"width": 256, "depth": 1, "spp_before": (1,), "spp_after": (1, 3)},
    ),
    "yolov4-pacsp": _pacsp(
        {
            "stem": 32,
            "channels": (64, 128, 256, 512, 1024),
            "stage1_hidden": 32,
            "depths": (1, 2, 8, 8, 4),
        },
        {"width": 512, "depth": 2, "spp_before": (1, 3, 1), "spp_after": (1, 3)},
    ),
    "yolov4-pacsp-x": _pacsp(
        {
            "stem": 32,
            "channels": (80, 160, 320, 640, 1280),
            "stage1_hidden": 40,
            "depths": (1, 3, 10, 10, 5),
        },
        {"width": 640, "depth": 3, "spp_before": (1, 3, 1), "spp_after": (1, 3, 1, 3)},
    ),
    "yolov4": Variant(
        _CSPDARKNET53,
        partial(PANet, width=512),
        scale_x_y=(1.2, 1.1, 1.05),
        darknet_size="exp",
        accepts=MIWRC,
    ),
    "csdarknet53-yolov3": Variant(
        _CSPDARKNET53,
        partial(YOLOv3Neck, width=512),
        scale_x_y=(1.0, 1.0, 1.0),
        darknet_size="exp",
        accepts=MIWRC,
    ),
    "yolov4-tiny": Variant(
        TinyDarknet,
        partial(TinyNeck, width=256),
        partial(YOLOHead, hidden=(256, 512)),
        anchors=TINY_ANCHORS,
        scale_x_y=(1.05, 1.05),
        darknet_size="exp",
        halves=True,
    ),
    # a classifier with the layers of csdarknet53-omega, 1000 classes
    "csdarknet53": Variant(_CSPDARKNET53, accepts=MIWRC),
    # classifiers with the layers of csresnet50.cfg and csresnext50.cfg; backbones for `model.backbone`
    "csp_resnet50": Variant(partial(CSPResNet), accepts=MIWRC),
    "csp_resnext50": Variant(
        partial(
            CSPResNet,
            hidden=(128, 256, 512, 1024),
            channels=(256, 512, 1024, 2048),
            groups=32,
        ),
        accepts=MIWRC,
    ),
    "peleenet": Variant(partial(PeleeNet), orders=()),
    # its classifier takes levels 3 to 7, a detector 3 to 5
    "spinenet49": Variant(
        partial(SpineNet),
        network=partial(PyramidClassifier, partial(SpineNet, levels=(3, 4, 5, 6, 7))),
        orders=(),
    ),
    # classifiers for images of 32 pixels; cnn6 and mlp are not published
    "cnn6": Variant(partial(SixLayerCNN)),
    "resnet20": Variant(partial(SmallResNet), orders=()),
    "wrn10_2": Variant(
        partial(SmallResNet, channels=(16, 32, 64, 128), depth=1, wide=True), orders=()
    ),
    "simplenet": Variant(partial(SimpleNet), orders=()),
    "mlp": Variant(partial(FullyConnected), orders=(), accepts=("depth",)),
    "capsnet": Variant(network=partial(CapsNet), orders=()),
    # classifiers of torchvision and timm
    **{
        name: Variant(
            network=partial(AdoptedClassifier, source), orders=(), accepts=("small_images",)
        )
        for name, source in ADOPTED.items()
    },
}
