import pytest
import torch
from torch import nn

from detector import build
from detector.config import Config, ModelConfig, load_config
from detector.engine import group_parameters
from detector.models import VARIANTS
from detector.nn import ACTIVATIONS, SPPBlock, activation
from detector.nn.blocks import BatchNormSettings
from tests.models.networks import build_on_meta


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_n_is_below_two_million():
    assert count(build_on_meta("yolov4-pacsp-n")) < 2_000_000


def test_three_parameter_groups_of_the_base_model():
    groups = group_parameters(build_on_meta("yolov4-pacsp"))
    assert {name: len(group) for name, group in groups.items()} == {
        "weight": 115,
        "gain": 112,
        "bias": 115,
    }


@pytest.mark.parametrize(
    "arch",
    [
        name
        for name, row in VARIANTS.items()
        if "small_images" not in row.accepts and name != "capsnet"  # it has no BatchNorm
    ],
)
def test_batchnorm_settings_reach_every_layer(arch):
    norms = [m for m in build_on_meta(arch).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-4, 0.03)}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_trains_a_network(name):
    model = build.build_model(ModelConfig(arch="yolov4-pacsp-n", activation=name), 2)
    raw = model(torch.rand(2, 3, 32, 32))
    sum(level.sum() for level in raw).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_state_dict_does_not_depend_on_the_activation():
    mish, leaky = (
        build.build_model(ModelConfig(arch="yolov4-pacsp-n", activation=name), 2).state_dict()
        for name in ("mish", "leaky_relu")
    )
    assert list(mish) == list(leaky)


def test_activation_parameters_from_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model:\n  activation: {name: leaky_relu, negative_slope: 0.25}\n")
    act = build.build_activation(load_config(str(path)).model.activation)(8)
    assert act.negative_slope == 0.25


def test_the_head_is_initialised_for_rare_objects():
    model = build.build_model(Config().model, 80)
    outputs = [m for m in model.head.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    means = [output.bias.view(3, 85)[:, 4].mean().item() for output in outputs]
    assert means == pytest.approx([-6.68, -5.30, -3.93], abs=0.1)
    assert outputs[0].bias.view(3, 85)[:, 5:].mean().item() == pytest.approx(-4.88, abs=0.1)


def test_spp_pools_equal_the_separate_ones():
    block = SPPBlock(
        4, 4, before=(1,), after=(1,), act=activation("relu"), norm=BatchNormSettings()
    ).eval()
    seen = []
    block.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 4, 17, 19)
    block(x)
    p = block.squeeze(x)
    pools = [nn.functional.max_pool2d(p, k, 1, k // 2) for k in (13, 9, 5)]
    assert torch.equal(seen[0], torch.cat([*pools, p], 1))
