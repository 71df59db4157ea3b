import copy

import pytest
import torch
from torch import nn

from detector.engine import OPTIMIZERS, Schedule, adamw, freeze, sgd
from detector.engine.schedule import apply_settings
from detector.errors import UserError

SCHEDULE = Schedule(10, 2, 0.01, 0.1, 0.9, 10, 0.8, 0.1, 1)


def model():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.ModuleDict({"body": body, "head": nn.Conv2d(4, 2, 1)})


def rates(optimizer):
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_parameter_is_in_one_group_and_only_weights_decay(name):
    net = model()
    optimizer = OPTIMIZERS[name](
        net, lr=0.01, momentum=0.9, weight_decay=0.5, factors={"body": 0.1, "*.bias": 2.0}
    )
    members = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(members) == len(set(members)) == len(list(net.parameters()))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for parameter in net.parameters():
        assert decays[id(parameter)] == (0.5 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_factors_multiply_the_rate_and_the_last_pattern_counts(name):
    net = model()
    optimizer = OPTIMIZERS[name](
        net, lr=1.0, momentum=0.9, weight_decay=0.0, factors={"body": 0.1, "body.1": 0.5}
    )
    settings = SCHEDULE.settings_at(5)
    apply_settings(optimizer, settings)
    lr_of = rates(optimizer)
    assert lr_of[id(net["body"][0].weight)] == pytest.approx(0.1 * settings.lr)
    assert lr_of[id(net["body"][0].bias)] == pytest.approx(0.1 * settings.bias_lr)
    assert lr_of[id(net["body"][1].weight)] == pytest.approx(0.5 * settings.lr)
    assert lr_of[id(net["head"].weight)] == settings.lr
    assert lr_of[id(net["head"].bias)] == settings.bias_lr


def test_the_momentum_reaches_adams_first_beta():
    optimizer = adamw(model(), lr=0.01, momentum=0.9, weight_decay=0.0)
    apply_settings(optimizer, SCHEDULE.settings_at(5))
    assert all(g["betas"] == (pytest.approx(0.85), 0.999) for g in optimizer.param_groups)


def test_without_factors_the_groups_are_the_recipes():
    groups = sgd(model(), lr=1.0, momentum=0.9, weight_decay=0.1).param_groups
    assert [(g["name"], g["factor"], len(g["params"])) for g in groups] == [
        ("weight", 1.0, 2),
        ("gain", 1.0, 1),
        ("bias", 1.0, 3),
    ]


def test_frozen_parameters_are_in_no_group():
    net = model()
    freeze(net, ["body"])
    members = [
        p for g in sgd(net, lr=1, momentum=0, weight_decay=1).param_groups for p in g["params"]
    ]
    assert {id(p) for p in members} == {id(p) for p in net["head"].parameters()}


def test_a_pattern_that_names_nothing():
    with pytest.raises(
        UserError, match=r"train\.lr_groups: no part is named 'heads'; did you mean head"
    ):
        sgd(model(), lr=1, momentum=0, weight_decay=0, factors={"heads": 0.1})
    with pytest.raises(UserError, match="unknown optimizer 'sdg'; did you mean sgd"):
        OPTIMIZERS["sdg"]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_resumed_optimizer_continues_to_the_same_bits(name):
    def step(net, optimizer, number):
        apply_settings(optimizer, SCHEDULE.settings_at(number))
        x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        net["head"](net["body"](x)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def make(net):
        return OPTIMIZERS[name](net, lr=0.01, momentum=0.9, weight_decay=0.1, factors={"body": 0.5})

    first = model()
    optimizer = make(first)
    for number in range(2):
        step(first, optimizer, number)
    second = copy.deepcopy(first)
    resumed = make(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(2, 4):
        step(first, optimizer, number)
        step(second, resumed, number)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
