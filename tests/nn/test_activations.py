import copy
import math
import pickle

import pytest
import torch
from torch import nn

from detector.errors import UserError
from detector.nn import (
    ACTIVATIONS,
    BatchNormSettings,
    ConvNormAct,
    Mish,
    activation,
    compute_curves,
)


def softplus(x):
    return torch.log1p(torch.exp(x))


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def normal(x):
    return (1 + torch.erf(x / math.sqrt(2))) / 2, torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def where(x, above, below):
    return torch.where(x > 0, above, below)


ONE = torch.ones((), dtype=torch.float64)
# value and derivative, written out; in float64 on -9 .. 9
FORMULAS = {
    "mish": (
        lambda x: x * torch.tanh(softplus(x)),
        lambda x: torch.tanh(softplus(x)) + x * sigmoid(x) / torch.cosh(softplus(x)) ** 2,
    ),
    "swish": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    "gelu": (lambda x: x * normal(x)[0], lambda x: normal(x)[0] + x * normal(x)[1]),
    "relu": (lambda x: x.clamp(min=0), lambda x: where(x, ONE, 0 * ONE)),
    "leaky_relu": (lambda x: where(x, x, 0.1 * x), lambda x: where(x, ONE, 0.1 * ONE)),
    "elu": (lambda x: where(x, x, torch.expm1(x)), lambda x: where(x, ONE, torch.exp(x))),
    "selu": (
        lambda x: 1.0507009873554805 * where(x, x, 1.6732632423543772 * torch.expm1(x)),
        lambda x: 1.0507009873554805 * where(x, ONE, 1.6732632423543772 * torch.exp(x)),
    ),
    "softplus": (softplus, sigmoid),
    "srelu": (lambda x: where(x, x, 0.2 * x), lambda x: where(x, ONE, 0.2 * ONE)),
    "isru": (lambda x: x / (1 + x**2).sqrt(), lambda x: (1 + x**2) ** -1.5),
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x) ** 2),
    "rrelu": (
        lambda x: where(x, x, (1 / 8 + 1 / 3) / 2 * x),
        lambda x: where(x, ONE, (1 / 8 + 1 / 3) / 2 * ONE),
    ),
    "arctan_softplus": (
        lambda x: torch.atan(x) * softplus(x),
        lambda x: softplus(x) / (1 + x**2) + torch.atan(x) * sigmoid(x),
    ),
    "tanh_softplus": (
        lambda x: torch.tanh(x) * softplus(x),
        lambda x: softplus(x) / torch.cosh(x) ** 2 + torch.tanh(x) * sigmoid(x),
    ),
    "log_arctan_exp": (
        lambda x: x * torch.log(1 + torch.atan(torch.exp(x))),
        lambda x: (
            torch.log(1 + torch.atan(torch.exp(x)))
            + x * torch.exp(x) / ((1 + torch.exp(2 * x)) * (1 + torch.atan(torch.exp(x))))
        ),
    ),
    "log_tanh_exp": (
        lambda x: x * torch.log(1 + torch.tanh(torch.exp(x))),
        lambda x: (
            torch.log(1 + torch.tanh(torch.exp(x)))
            + x * torch.exp(x) * (1 - torch.tanh(torch.exp(x)))
        ),  # sech^2 = (1 - tanh)(1 + tanh)
    ),
    "hardswish": (
        lambda x: x * (x + 3).clamp(0, 6) / 6,
        lambda x: torch.where(x.abs() >= 3, where(x, ONE, 0 * ONE), (2 * x + 3) / 6),
    ),
    "logistic": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "identity": (lambda x: x, lambda x: torch.ones_like(x)),
}
X = torch.linspace(-9, 9, 102, dtype=torch.float64)  # 0 and the corners at +-3 lie between


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_derivatives(name):
    value, first, second = compute_curves(name, X)
    formula, derivative = FORMULAS[name]
    torch.testing.assert_close(value, formula(X), atol=1e-7, rtol=1e-7)  # srelu's 0.2 is float32
    torch.testing.assert_close(first, derivative(X), atol=1e-7, rtol=1e-7)
    width = 1e-4
    slope = (derivative(X + width) - derivative(X - width)) / (2 * width)
    torch.testing.assert_close(second, slope, atol=1e-5, rtol=1e-4)


def test_every_entry_is_tested_and_documented():
    entries = {ACTIVATIONS[name]: name for name in reversed(list(ACTIVATIONS))}
    assert set(entries.values()) == set(FORMULAS)
    for entry in entries:
        assert "Derivative" in entry.__doc__
        assert "Range" in entry.__doc__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_slopes_are_finite_for_every_number(name, dtype):
    """Values and slopes stay finite up to the dtype's limits, and the dtype stays."""
    if (name, dtype) == ("rrelu", torch.float16):
        pytest.skip("torch has no such kernel on the CPU")
    most = torch.finfo(dtype).max
    x = torch.tensor([-most, -1e4, -200.0, -21, 0, 21, 200, 1e4, most / 8], dtype=dtype)
    x.requires_grad_()
    y = activation(name)(1)((x * 1).view(-1, 1))
    assert y.dtype == dtype
    assert y.isfinite().all()
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.isfinite().all()
    assert grad.abs().max() < 1.8


@pytest.mark.parametrize("name", FORMULAS)
def test_copied_and_pickled(name):
    act = activation(name)(3)
    x = torch.randn(2, 3, 4, 4)
    expected = act.eval()(x.clone())
    for other in (copy.deepcopy(act), pickle.loads(pickle.dumps(act))):
        assert torch.equal(other(x.clone()), expected)


def test_srelu_learns_four_values_a_channel():
    act = activation("srelu", high_slope=0.5)(3)
    assert [tuple(p.shape) for p in act.parameters()] == [(3,)] * 4
    x = torch.tensor([-2.0, 0.5, 3.0]).view(1, 3, 1, 1)
    assert act(x).flatten().tolist() == pytest.approx([-0.4, 0.5, 2.0])
    wide = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(act.double(), (wide,))
    act(x.double()).sum().backward()
    assert all(p.grad.isfinite().all() for p in act.parameters())


def test_rrelu_draws_from_the_seeded_generator():
    act, x = activation("rrelu", lower=0.1, upper=0.4)(1).train(), -torch.ones(1000)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(act(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert -draws[0].max() >= 0.1
    assert -draws[0].min() <= 0.4
    assert torch.allclose(act.eval()(x), torch.full((1000,), -0.25))


def test_a_new_activation_is_a_function_and_a_name():
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


def test_mish_in_place_only_where_nothing_is_recorded():
    mish, x = Mish(inplace=True), torch.tensor([-1.0, 0.0, 2.0])
    expected = nn.functional.mish(x)
    with torch.no_grad():
        y = mish(x)
    assert y is x
    torch.testing.assert_close(x, expected)
    recorded = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    mish(recorded).sum().backward()
    assert recorded.tolist() == [-1.0, 0.0, 2.0]
    assert repr(mish) == "Mish(inplace=True)"
    assert repr(Mish()) == "Mish()"
