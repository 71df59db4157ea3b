import pytest
import torch
from torch import nn

from detector.errors import UserError
from detector.nn import ACTIVATIONS, BatchNormSettings, ConvNormAct, activation

FORMULAS = {
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.1 * x),
    "relu": lambda x: x.clamp(min=0),
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values(name):
    x = torch.linspace(-9, 9, 101, dtype=torch.float64)
    assert torch.allclose(activation(name)(1)(x.clone()), FORMULAS[name](x), atol=1e-12)


def test_a_new_one_is_a_function_and_a_name():
    name = "test_only_double"
    try:

        @ACTIVATIONS.register(name)
        def double(channels: int, *, factor: float = 2.0) -> nn.Module:
            return nn.Threshold(-1e9, 0.0) if factor == 1.0 else nn.PReLU(channels, init=factor)

        block = ConvNormAct(3, 5, 1, act=activation(name, factor=3.0), norm=BatchNormSettings())
        assert block.act.weight.tolist() == [3.0] * 5
    finally:
        del ACTIVATIONS._entries[name]


def test_unknown_names_and_parameters():
    with pytest.raises(UserError, match=r"unknown activation 'mihs'; did you mean mish\?"):
        activation("mihs")
    with pytest.raises(UserError, match=r"no parameter 'slope'.*has negative_slope"):
        activation("leaky_relu", slope=0.1)
    with pytest.raises(UserError, match="has none"):
        activation("mish", beta=1.0)


def test_mish_after_norm_equals_norm_then_mish():
    """Training and evaluation, outputs, gradients and running statistics."""
    fused = ConvNormAct(3, 4, 3, act=activation("mish"), norm=BatchNormSettings())
    plain = nn.Sequential(fused.conv, nn.BatchNorm2d(4, eps=1e-4, momentum=0.03), nn.Mish())
    x = torch.randn(2, 3, 9, 7)
    for training in (True, False):
        fused.train(training), plain.train(training)
        ours, theirs = fused(x), plain(x)
        assert torch.allclose(ours, theirs, atol=1e-6)
    fused.train(), plain.train()
    (a,) = torch.autograd.grad(fused(x).square().sum(), fused.conv.weight)
    (b,) = torch.autograd.grad(plain(x).square().sum(), fused.conv.weight)
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    for name, value in plain[1].state_dict().items():
        assert torch.allclose(fused.norm.state_dict()[name].float(), value.float(), atol=1e-6), name
