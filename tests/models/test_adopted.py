"""Networks of torchvision and timm with our activations: the same arithmetic, and no ReLU left."""

import sys

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional

from detector.build import build_network
from detector.config import ModelConfig
from detector.errors import UserError
from detector.models import ADOPTED, save_darknet
from detector.models.adopted import (
    ACTIVATION_FUNCTIONS,
    ACTIVATION_METHODS,
    ACTIVATION_MODULES,
    replace_activations,
)
from detector.nn import Conv2d, activation
from detector.nn.activations import SReLU
from tests.models.networks import build_on_meta

CALLS = ("call_function", "call_method")
# the others take seconds to trace
NAMES = [
    pytest.param(n, marks=[] if n in ("resnet18", "squeezenet1_1") else [pytest.mark.slow])
    for n in ADOPTED
]


def create_with_values(name: str) -> nn.Module:
    """The package's network with random weights, without its slow initialisation."""
    with torch.device("meta"):
        network = ADOPTED[name].create(3)
    network = network.to_empty(device="cpu").eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.reset_running_stats()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5)
        elif parameter.isnan().any() or parameter.abs().max() > 2:
            nn.init.zeros_(parameter)
    return network


class EveryUse(nn.Module):
    """Functions, methods and modules; one module twice, on maps of different widths; an input kept."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.relu, self.kept = nn.ReLU(inplace=True), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.one(x))
        x = self.relu(self.two(x) - 0.1)
        x = functional.relu(x - 0.1, inplace=True)
        y = functional.relu(x - 0.1)
        z = x - 0.2
        return torch.relu((self.kept(z) + z + y.relu() + (x - 0.3).relu_()).mean((2, 3)))


def count_by_type(model: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def test_every_use_of_an_activation_is_replaced_by_a_module_of_its_own():
    network = EveryUse()
    images = torch.randn(2, 3, 8, 8)
    expected = network(images)
    traced = replace_activations(network, activation("relu"), size=8)
    assert torch.equal(traced(images), expected)
    learned = replace_activations(EveryUse(), activation("srelu"), size=8)
    assert count_by_type(learned, SReLU) == 8
    assert count_by_type(learned, nn.ReLU) == 0
    widths = [m.low.numel() for m in learned.modules() if isinstance(m, SReLU)]
    assert widths.count(4) == 1
    assert widths.count(6) == 7


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_relu_in_place_of_relu_changes_no_bit(name):
    network = create_with_values(name)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        actual = replace_activations(network, activation("relu"), size=64)(images)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_for_small_images_with_our_activation(name):
    if ADOPTED[name].package == "timm":
        pytest.importorskip("timm")
    model = build_on_meta(name, 1000, activation="srelu", small_images=True).eval()
    assert not any(isinstance(m, ACTIVATION_MODULES) for m in model.modules())
    assert isinstance(model.network, fx.GraphModule)
    calls = [node.target for node in model.network.graph.nodes if node.op in CALLS]
    assert not any(t in ACTIVATION_FUNCTIONS or t in ACTIVATION_METHODS for t in calls)
    maps = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out: maps.append(out.shape[-1]))
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 1000)
    smallest = min(size for size in maps if size > 1)  # 1: squeeze and excitation
    assert 2 <= smallest <= 8
    assert max(maps) >= 30


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "squeezenet1_1" else [pytest.mark.slow])
        for name, row in ADOPTED.items()
        if row.package == "torchvision"
    ],
)
def test_parameters_are_torchvisions(name):
    """Its number for Inception-v3 includes the auxiliary classifier."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = build_on_meta(name, 1000)
    published = weights.meta["num_params"] - (3_326_696 if name == "inception_v3" else 0)
    assert sum(p.numel() for p in model.parameters()) == published
    size = model.smallest
    assert model.eval()(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 1000)


def test_convolutions_are_ours():
    """Whose weights get their gradients from our kernel."""
    convs = [m for m in build_on_meta("resnet18").modules() if isinstance(m, nn.Conv2d)]
    assert {type(m) for m in convs} == {Conv2d}
    assert len(convs) == 20


def test_batch_norms_keep_their_eps_unless_the_config_sets_one():
    for settings, expected in (
        ({}, (1e-5, 0.03)),
        ({"bn_eps": 1e-3, "bn_momentum": 0.1}, (1e-3, 0.1)),
    ):
        model = build_on_meta("resnet18", **settings)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.eps, m.momentum) for m in norms} == {expected}


def test_mistakes_are_named(monkeypatch, tmp_path):
    network = build_on_meta("squeezenet1_1")
    network.smallest = ADOPTED["inception_v3"].smallest
    with pytest.raises(UserError, match=r"64 x 64 px are too small.*model.small_images=true"):
        network(torch.zeros(1, 3, 64, 64, device="meta"))
    with pytest.raises(UserError, match="small_images: cnn6 has no such option"):
        build_network(ModelConfig(arch="cnn6", small_images=True), 2)
    with pytest.raises(UserError, match="darknet has no format"):
        save_darknet(build_on_meta("resnet18"), tmp_path / "x.weights")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'pip install "detector\[timm\]"'):
        build_network(ModelConfig(arch="xception"), 2)
