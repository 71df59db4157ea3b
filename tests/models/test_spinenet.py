"""SpineNet-49: published sizes, maps, use in detectors."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from detector.build import build_network
from detector.config import ModelConfig, config_from_dict
from detector.models import PyramidClassifier, measure_stages
from detector.models.spinenet import SPINENET_49, Block, Resample, SpineNet
from detector.nn import activation
from detector.nn.blocks import BatchNormSettings
from detector.weights.darknet import Weights
from detector.weights.transfer import transfer
from tests.models.networks import NARROW, build_on_meta, randomize_norms

PARTS = {"act": activation("relu"), "norm": BatchNormSettings()}
SMALL = {**NARROW[SpineNet], **PARTS}


def test_sizes_are_the_published_ones():
    """The authors' table of ImageNet classifiers: 22.1 M parameters, 3.5 G multiply-adds at 224 px."""
    model = build_on_meta("spinenet49", 1000)
    stages = measure_stages(model, 224, 224)
    assert sum(stage.parameters for stage in stages) / 1e6 == pytest.approx(22.1, abs=0.05)
    assert sum(stage.flops for stage in stages) / 2e9 == pytest.approx(3.5, abs=0.05)


def test_a_map_for_each_level_whatever_the_size():
    net = SpineNet(levels=(3, 4, 5, 6, 7), **SMALL).eval()
    for height, width in ((256, 128), (96, 32)):
        with torch.no_grad():
            maps = net(torch.zeros(2, 3, height, width))
        assert net.strides == (8, 16, 32, 64, 128)
        assert [tuple(x.shape) for x in maps] == [
            (2, 12, -(-height // stride), -(-width // stride)) for stride in net.strides
        ]


def test_each_block_has_earlier_parents_and_a_child_or_a_map():
    last = {block.level: number for number, block in enumerate(SPINENET_49)}
    used = {0, *(last[level] for level in (3, 4, 5, 6, 7))}
    for number, block in enumerate(SPINENET_49[2:], 2):
        assert max(block.parents) < number
        used |= {*block.parents, number if block.spare is None else block.spare}
        if block.spare is not None:
            spare = SPINENET_49[block.spare]
            assert (spare.level, spare.kind) == (block.level, block.kind)
    assert used == set(range(len(SPINENET_49)))


@pytest.mark.parametrize(("levels", "scale"), [((4, 2), "up"), ((2, 4), "down"), ((3, 3), "same")])
def test_resampling(levels, scale):
    """With weights that pass one channel on: the nearest pixel, a strided convolution and a pool."""
    parent, child = (Block(level, "basic") for level in levels)
    parts = {"act": activation("identity"), "norm": BatchNormSettings(eps=1e-12)}
    net = Resample(parent, child, 1 / 16, **parts).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            middle = module.kernel_size[0] // 2
            module.weight.data[0, 0, middle, middle] = 1
    x = torch.rand(1, parent.channels(1 / 16), 8, 8)
    size = {"up": (32, 32), "down": (2, 2), "same": (8, 8)}[scale]
    one = x[:, :1]
    expected = {
        "up": one.repeat_interleave(4, 2).repeat_interleave(4, 3),
        "down": functional.max_pool2d(one[:, :, ::2, ::2], 3, 2, 1),
        "same": one,
    }[scale]
    torch.testing.assert_close(net(x, size)[:, :1], expected)


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize(
    "settings",
    [{"arch": "spinenet49"}, {"arch": "yolov4-pacsp-n", "backbone": "spinenet49"}],
    ids=["classifier", "detector"],
)
def test_every_parameter_has_a_gradient(settings):
    """So neither has blocks that its maps do not need."""
    torch.manual_seed(0)
    model = build_network(ModelConfig(**settings, activation="mish"), 3)
    output = model(torch.rand(2, 3, 128, 128))
    sum(x.square().sum() for x in output).backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert missing == []


@pytest.mark.usefixtures("small_variants")
def test_its_classifier_starts_a_detector():
    """Whose backbone has the classifier's names and fewer blocks."""
    settings = {"arch": "spinenet49"}
    classifier = build_network(ModelConfig(**settings), 3)
    weights = Weights(
        config=config_from_dict({"model": settings}, "test", []),
        names=tuple("abc"),
        tensors=classifier.state_dict(),
        source="cls.pt",
    )
    detector = build_network(ModelConfig(arch="yolov4-pacsp-n", backbone="spinenet49"), 2).eval()
    table = transfer(detector, weights, 2)
    own, given = detector.backbone.state_dict(), classifier.backbone.state_dict()
    assert f"backbone   {len(own)} of {len(own)}" in table
    assert len(own) < len(given)
    assert all(torch.equal(tensor, given[name]) for name, tensor in own.items())
    shapes = [tuple(x.shape[2:4]) for x in detector(torch.rand(1, 3, 64, 96))]
    assert shapes == [(8, 12), (4, 6), (2, 3)]


def test_the_classifier_averages_all_maps():
    net = PyramidClassifier(
        lambda **parts: SpineNet(levels=(3, 4, 5, 6, 7), **NARROW[SpineNet], **parts),
        num_classes=3,
        **PARTS,
    )
    randomize_norms(net)
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        maps = net.backbone(x)
        total = sum(functional.interpolate(level, (16, 16)) for level in maps) / 5
        expected = net.head(total.mean((2, 3), keepdim=True)).flatten(1)
        torch.testing.assert_close(net(x), expected)
