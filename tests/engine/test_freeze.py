import pytest
from torch import nn

from detector.engine import freeze
from detector.engine.patterns import match_parameters
from detector.errors import UserError


def model():
    block = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    parts = {"backbone": nn.ModuleDict(block), "head": nn.ModuleDict({"out": nn.Conv2d(4, 2, 1)})}
    return nn.ModuleDict(parts)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("head", ["head.out.weight", "head.out.bias"]),
        ("backbone.norm", ["backbone.norm.weight", "backbone.norm.bias"]),
        ("*.bias", ["backbone.conv.bias", "backbone.norm.bias", "head.out.bias"]),
        ("*.[cn]o*.weight", ["backbone.conv.weight", "backbone.norm.weight"]),
        ("head.out.bias", ["head.out.bias"]),
    ],
)
def test_patterns_name_parts_and_parameters(pattern, names):
    assert list(match_parameters(model(), pattern, "k")) == names


def test_a_pattern_matches_whole_words():
    with pytest.raises(
        UserError, match=r"^k: no part is named 'back'.* \(parts: backbone, head\)$"
    ):
        match_parameters(model(), "back", "k")
    with pytest.raises(UserError, match=r"'bakbone'; did you mean backbone\?"):
        match_parameters(model(), "bakbone", "k")


def test_what_is_frozen_is_counted_and_gets_no_gradient():
    net = model()
    frozen = freeze(net, ["backbone.conv", "backbone.norm.weight"])
    assert (frozen.num_parameters, frozen.total) == (112 + 4, 112 + 8 + 10)
    assert frozen.norms == ()  # its bias learns
    assert [p.requires_grad for p in net["backbone"].parameters()] == [False, False, False, True]
    assert str(frozen).startswith("frozen: 116 of 130 parameters")


def test_frozen_norms_keep_their_statistics():
    net = model()
    frozen = freeze(net, ["backbone"])
    net.train()
    frozen.freeze_statistics()
    assert not net["backbone"]["norm"].training
    assert net["backbone"]["conv"].training


def test_nothing_and_everything():
    assert freeze(model(), []).num_parameters == 0
    with pytest.raises(UserError, match=r"train\.freeze: \* matches the whole model"):
        freeze(model(), ["*"])
