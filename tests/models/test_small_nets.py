"""Networks for images of 32 pixels: published sizes, shapes, depth, initialisers."""

import math

import pytest
import torch
from torch import nn

from detector.build import build_network
from detector.config import ModelConfig
from detector.errors import UserError
from detector.models import VARIANTS, YOLO
from detector.models.small_nets import BasicBlock, WideBlock
from detector.nn import INITIALISERS, activation, initialise_weights
from detector.nn.blocks import BatchNormSettings
from tests.models.networks import build_on_meta

PARTS = {"act": activation("mish"), "norm": BatchNormSettings()}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_for_ten_classes():
    """He et al., 2015, table 6: 0.27 M; Hasanpour et al., 2016: 5.48 M, weights of convolutions."""
    assert count(build_on_meta("resnet20", 10)) == 269_722
    simplenet = build_on_meta("simplenet", 10)
    kernels = sum(
        m.weight.numel() for m in simplenet.backbone.modules() if isinstance(m, nn.Conv2d)
    )
    assert round(kernels / 1e6, 2) == 5.48
    # 16 x 27, 3 blocks of two 3x3 and a 1x1 shortcut, BatchNorm of 2 (16 + 32 + 2 x 64 + 2 x 128), head
    wide = sum(9 * (i * o + o * o) + i * o for i, o in ((16, 32), (32, 64), (64, 128)))
    norms = 2 * (16 + 32 + 32 + 64 + 64 + 128 + 128)
    assert count(build_on_meta("wrn10_2", 10)) == 16 * 27 + wide + norms + 128 * 10 + 10


@pytest.mark.parametrize("arch", ["resnet20", "wrn10_2", "simplenet", "mlp"])
def test_logits_of_images_of_32_px(arch):
    model = build_on_meta(arch, 10)
    for size in (32, 64):
        assert model(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 10)
    (features,) = model.backbone(torch.zeros(2, 3, 32, 32, device="meta"))
    assert features.shape[1:2] == model.backbone.out_channels


def test_shortcuts():
    """With the last scale at 0 only the shortcut is left; it halves the resolution by subsampling."""
    x = torch.rand(1, 4, 4, 4)
    block = BasicBlock(4, 6, 2, act=activation("identity"), norm=BatchNormSettings()).eval()
    nn.init.zeros_(block.second.norm.weight)
    assert torch.equal(block(x)[:, :4], x[:, :, ::2, ::2])
    assert not block(x)[:, 4:].any()
    wide = WideBlock(4, 4, 1, **PARTS).eval()
    nn.init.zeros_(wide.second.conv.weight)
    assert torch.equal(wide(x), x)


def test_depth_of_the_fully_connected_network():
    convs = [
        sum(isinstance(m, nn.Conv2d) for m in build_on_meta("mlp", 10, depth=depth).modules())
        for depth in (None, 20)
    ]
    assert convs == [16, 21]
    with pytest.raises(UserError, match=r"model.depth: cnn6 has no such option.*: mlp"):
        build_network(ModelConfig(arch="cnn6", depth=20), 2)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        *(("glorot_uniform", 2 / 600), ("glorot_normal", 2 / 600), ("lecun_normal", 1 / 400)),
        *(("he_uniform", 2 / 400), ("he_normal", 2 / 400)),
    ],
)
def test_initialisers(name, variance):
    model = nn.Sequential(nn.Linear(400, 200), nn.BatchNorm1d(200), nn.Conv2d(100, 50, 2))
    bias = model[0].bias.clone()
    torch.manual_seed(0)
    initialise_weights(model, name)
    weight = model[0].weight
    assert weight.var().item() == pytest.approx(variance, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / weight.numel()))
    limit = weight.abs().max().item() / math.sqrt(variance)
    assert limit <= math.sqrt(3) if "uniform" in name else limit > 3
    assert torch.equal(model[0].bias, bias)
    if "glorot" not in name:  # 400 inputs as well
        assert model[2].weight.var().item() == pytest.approx(variance, rel=0.05)


def test_every_initialiser_is_tested_and_reaches_the_network():
    assert len(list(INITIALISERS)) == 9  # five and their synonyms
    weights = []
    for init in ("default", "he_normal"):
        torch.manual_seed(0)
        model = build_network(ModelConfig(arch="mlp", depth=1, init=init), 2)
        weights.append(model.backbone.layers[0].conv.weight)
    assert weights[1].var().item() == pytest.approx(2 / 3072, rel=0.01)
    assert weights[0].var().item() == pytest.approx(1 / 3 / 3072, rel=0.01)  # torch's
    with pytest.raises(UserError, match="unknown initialiser 'he'"):
        build_network(ModelConfig(arch="mlp", depth=1, init="he"), 2)
    with torch.device("meta"):
        detector = build_network(ModelConfig(arch="yolov4-pacsp-n", init="lecun_normal"), 2)
    assert isinstance(detector, YOLO)


def test_rows_without_darknet_files_say_so():
    assert not any(VARIANTS[name].orders for name in ("resnet20", "wrn10_2", "simplenet", "mlp"))
