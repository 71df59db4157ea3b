"""Capsule Net: published size, squashing, routing, logits."""

import pytest
import torch

from detector.build import build_criterion, build_network
from detector.config import ModelConfig, config_from_dict
from detector.losses.classification import margin, softmax_cross_entropy
from detector.models import measure_stages
from detector.models.capsnet import CapsNet, route, squash
from detector.nn import activation
from detector.nn.blocks import BatchNormSettings
from tests.models.networks import build_on_meta


@pytest.fixture
def small() -> CapsNet:
    torch.manual_seed(0)
    parts = {"act": activation("mish"), "norm": BatchNormSettings()}
    return CapsNet(num_classes=3, channels=6, kinds=2, **parts)


def test_parameters():
    """Published: 6.8 M without the decoder, for images of 28 px (6 x 6 positions) with one channel."""
    model = build_on_meta("capsnet", 10)
    colours, positions = 2 * 9 * 9 * 256, (8 * 8 - 6 * 6) * 32 * 8 * 10 * 16
    stages = measure_stages(model, 32, 32)  # none of the parameters is outside of them
    assert sum(stage.parameters for stage in stages) - colours - positions == 6_804_224
    assert type(model.act) is type(activation("mish")(1))
    assert type(build_on_meta("capsnet", 10, activation="swish").act) is type(
        activation("swish")(1)
    )


def test_squashing_keeps_the_direction():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]], requires_grad=True)
    short = squash(vectors)
    torch.testing.assert_close(short[0], torch.tensor([3.0, 4.0]) / 5 * 25 / 26)
    torch.testing.assert_close(short.norm(dim=1)[2].item(), 1e-6, rtol=1e-2, atol=0)
    short.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def route_slowly(votes: torch.Tensor, rounds: int) -> torch.Tensor:
    """Procedure 1 with loops, for one image [classes, capsules, d]."""
    classes, capsules, _ = votes.shape
    logits = torch.zeros(capsules, classes)
    total = torch.zeros(classes, votes.shape[2])
    for _ in range(rounds):
        for j in range(classes):
            total[j] = sum(logits[i].softmax(0)[j] * votes[j, i] for i in range(capsules))
        for i in range(capsules):
            for j in range(classes):
                logits[i, j] += votes[j, i] @ squash(total[j])
    return total


@pytest.mark.parametrize("rounds", [1, 3])
def test_routing(rounds):
    torch.manual_seed(0)
    votes = torch.randn(2, 3, 5, 4)
    total, coupling = route(votes, rounds)
    torch.testing.assert_close(coupling.sum(1), torch.ones(2, 5))
    assert (coupling == 1 / 3).all() == (rounds == 1)
    expected = torch.stack([route_slowly(each, rounds) for each in votes])
    torch.testing.assert_close(total, expected)


def test_agreement_wins():
    """All capsules vote the same for class 0 and at random for the other."""
    torch.manual_seed(0)
    votes = torch.randn(1, 2, 50, 4)
    votes[:, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    _, coupling = route(votes, 3)
    assert coupling[0, 0].mean() > 0.6


def test_logits_are_those_of_lengths(small):
    images = torch.rand(2, 3, 32, 32)
    logits = small(images)
    total, _ = route(small.classes.vote(small.find_capsules(images)), 3)
    torch.testing.assert_close(logits.sigmoid(), squash(total).norm(dim=-1))
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(small(larger), logits)


def test_every_parameter_has_a_gradient(small):
    margin(small(torch.rand(2, 3, 32, 32)), torch.eye(3)[:2]).sum().backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_half_precision_routes_in_float32(small):
    images = torch.rand(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = small(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, small(images), atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("arch", "words", "loss"),
    [
        ("capsnet", [], margin),
        ("capsnet", ["loss.classifier=cross_entropy"], softmax_cross_entropy),
        ("cnn6", [], softmax_cross_entropy),
        ("cnn6", ["loss.classifier=margin"], margin),
    ],
)
def test_the_loss_is_the_networks_unless_it_is_named(arch, words, loss):
    config = config_from_dict({"model": {"arch": arch}}, "test", words)
    with torch.device("meta"):
        model = build_network(ModelConfig(arch=arch), 3)
    assert build_criterion(config, model, 3).kind is loss
