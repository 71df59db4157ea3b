"""CSP-ResNet-50, CSP-ResNeXt-50, PeleeNet: published sizes, order of layers, use in detectors; MiWRC."""

from functools import partial

import pytest
import torch
from torch import nn

from detector.build import build_network
from detector.config import ModelConfig, config_from_dict
from detector.engine import group_parameters
from detector.errors import UserError
from detector.models import VARIANTS, YOLO, list_layers, measure_stages, save_darknet
from detector.models.csp_resnet import Bottleneck
from detector.nn import ConvNormAct, WeightedSum, activation
from detector.nn.blocks import BatchNormSettings
from detector.weights.darknet import Weights
from detector.weights.transfer import transfer
from tests.models.networks import build_on_meta

# millions of weights of convolutions, GFLOPs at a side: README of CrossStagePartialNetworks
PUBLISHED = {
    "csp_resnet50": (21.57, 8.97, 256),
    "csp_resnext50": (20.50, 7.93, 256),
    "peleenet": (2.79, 1.017, 224),
}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_sizes_are_the_published_ones(arch):
    millions, gflops, side = PUBLISHED[arch]
    model = build_on_meta(arch)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    assert weights / 1e6 == pytest.approx(millions, abs=0.005)
    flops = sum(stage.flops for stage in measure_stages(model, side, side))
    assert flops / 1e9 == pytest.approx(gflops, abs=0.006)


def list_cfg(branches, hidden, channels, groups):
    """(cin, cout, k, stride, groups, has an activation) in the order of csresnet50.cfg."""
    rows = [(3, 64, 7, 2, 1, True)]
    cin = 64
    for stage, depth in enumerate((3, 3, 5, 2)):
        branch, inner, out = branches[stage], hidden[stage], channels[stage]
        first = stage == 0
        if not first:
            rows.append((cin, cin, 3, 2, groups, True))
        active = stage in (0, 3)
        entry = 64 if first else branch
        rows += [(cin, branch, 1, 1, 1, active), (cin, entry, 1, 1, 1, active)]
        for unit in range(depth):
            rows += [
                (entry if unit == 0 else branch, inner, 1, 1, 1, True),
                (inner, inner, 3, 1, groups, True),
                (inner, branch, 1, 1, 1, False),
            ]
        rows += [(branch, branch, 1, 1, 1, True), (2 * branch, out, 1, 1, 1, True)]
        cin = out
    return rows


@pytest.mark.parametrize(
    ("arch", "widths"),
    [
        ("csp_resnet50", ((64, 128, 256, 512), (128, 256, 512, 1024), 1)),
        ("csp_resnext50", ((128, 256, 512, 1024), (256, 512, 1024, 2048), 32)),
    ],
)
def test_convolutions_one_by_one(arch, widths):
    model = build_on_meta(arch)
    acts = {m.conv: m.act for m in model.modules() if isinstance(m, ConvNormAct)}
    actual = [
        (
            *(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0]),
            *(conv.groups, not isinstance(acts[conv], nn.Identity)),
        )
        for conv in (layer.conv for layer in list_layers(model, "darknet")[:-1])
    ]
    assert actual == list_cfg((128, 256, 512, 1024), *widths)


def test_a_narrow_input_is_added_to_the_first_channels():
    block = Bottleneck(2, 2, 4, act=activation("identity"), norm=BatchNormSettings()).eval()
    nn.init.zeros_(block.expand.norm.weight)
    x = torch.rand(1, 2, 3, 3)
    assert torch.equal(block(x), torch.cat([x, torch.zeros_like(x)], 1))


@pytest.mark.parametrize("backbone", ["csp_resnet50", "csp_resnext50", "peleenet", "csdarknet53"])
def test_any_of_them_is_the_backbone_of_a_detector(backbone):
    model = build_on_meta("yolov4-pacsp", 3, backbone=backbone)
    assert isinstance(model, YOLO)
    raw = model(torch.zeros(2, 3, 96, 64, device="meta"))
    assert [tuple(level.shape) for level in raw] == [
        (2, 3, 96 // s, 64 // s, 8) for s in (8, 16, 32)
    ]
    assert model.orders == ()


@pytest.mark.usefixtures("small_variants")
def test_a_classifiers_weights_start_a_detector_with_this_backbone():
    settings = {"arch": "csp_resnet50"}
    classifier = build_network(ModelConfig(**settings), 5)
    config = config_from_dict({"model": settings}, "test", [])
    weights = Weights(
        config=config, names=tuple("abcde"), tensors=classifier.state_dict(), source="cls.pt"
    )
    detector = build_network(ModelConfig(arch="yolov4-pacsp-n", backbone="csp_resnet50"), 2)
    table = transfer(detector, weights, 2)
    count = len(classifier.backbone.state_dict())
    assert f"backbone   {count} of {count}" in table
    for name, tensor in detector.backbone.state_dict().items():
        assert torch.equal(tensor, classifier.backbone.state_dict()[name])


@pytest.mark.parametrize(("weighting", "count"), [("per_layer", 2), ("per_channel", 6)])
def test_weighted_sum(weighting, count):
    """The mean at first; a negative weight drops its map."""
    plain, weighted = WeightedSum(3), WeightedSum(3, weighting)
    x, y = torch.rand(2, 2, 3, 4, 4)
    assert torch.equal(plain(x, y), x + y)
    assert not plain.state_dict()
    assert weighted.values.shape == (count,)
    torch.testing.assert_close(weighted(x, y), (x + y) / 2, atol=1e-4, rtol=1e-4)
    weighted(x, y).sum().backward()
    assert weighted.values.grad.abs().min() > 0
    with torch.no_grad():
        weighted.values.copy_(torch.linspace(1, 2, count))
        weighted.values[: count // 2] *= -1
    torch.testing.assert_close(weighted(x, y), y, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("arch", ["yolov4-pacsp-n", "yolov4", "csp_resnet50"])
def test_miwrc_weights_each_residual_sum_of_the_backbone(arch, tmp_path):
    plain, weighted = (build_on_meta(arch, 2, miwrc=kind) for kind in ("none", "per_channel"))
    added = set(weighted.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) == set(weighted.state_dict()) - added
    assert len(added) == (
        5 if arch == "csp_resnet50" else 6
    )  # one unit a stage, two in one of them
    assert all(name.startswith("backbone.") and name.endswith(".sum.values") for name in added)
    gains = group_parameters(weighted)["gain"]
    assert sum(p is q for p in gains for q in weighted.parameters()) == len(gains)
    assert len(gains) == len(group_parameters(plain)["gain"]) + len(added)  # no weight decay
    with pytest.raises(UserError, match="darknet has no format"):
        save_darknet(weighted, tmp_path / "x.weights")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "yolov4", "backbone": "csp_resnet5"}, "did you mean csp_resnet50"),
        (
            {"arch": "yolov4", "backbone": "resnet18"},
            "with maps at the strides of yolov4, 8, 16, 32",
        ),
        ({"arch": "cnn6", "backbone": "peleenet"}, "model.backbone is for detectors"),
        ({"arch": "yolov4-tiny", "miwrc": "per_layer"}, "model.miwrc: yolov4-tiny has no such"),
        (
            {"arch": "yolov4", "backbone": "peleenet", "miwrc": "per_layer"},
            "model.miwrc: peleenet has no such option",
        ),
        (
            {"arch": "x.cfg", "darknet_cfg": "[net]\n", "backbone": "peleenet"},
            "model.backbone: x.cfg sets all layers",
        ),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        build_network(ModelConfig(**settings), 2)


def test_strides_are_known_before_a_backbone_is_built():
    for name, row in VARIANTS.items():
        if row.neck is not None:
            assert isinstance(row.backbone, partial) or row.halves, name
