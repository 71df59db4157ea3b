import copy

import pytest
import torch
from torch import nn

from detector.engine import Hardware, SelfAdversary
from detector.engine.adversarial import evaluation_mode
from detector.nn import DropBlock2d
from detector.structures import Batch

WEIGHTS = {"box": 1.0, "obj": 2.0}


class Criterion:
    """Objectness loss of every cell, like the detector's: the target is 0 where there is no box."""

    def __call__(self, raw, batch, total):
        (level,) = raw
        target = torch.zeros_like(level)
        target[batch.image_index] = 1.0
        bce = nn.functional.binary_cross_entropy_with_logits(level.float(), target.float())
        return {"box": level.new_zeros(()), "obj": bce}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            DropBlock2d(block_size=3, target=0.2),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, x):
        return [self.body(x)]


def batch_of(images):
    n = len(images)
    index = torch.arange(n)
    return Batch(
        images,
        torch.tensor([[2.0, 2.0, 9.0, 9.0]]).expand(n, 4),
        torch.zeros(n, dtype=torch.long),
        index,
        torch.zeros(0, 4),
        index[:0],
        list(range(n)),
    )


def make(precision="fp32", **options):
    hardware = Hardware.choose("cpu", precision, channels_last=False)
    options = {"share": 0.5, "strength": 0.05, "seed": 3, **options}
    return SelfAdversary(Net().train(), Criterion(), autocast=hardware.autocast, **options)


def changed(adversary, images, progress=1.0, **options):
    batch = batch_of((images * 255).byte())
    return adversary.perturb(images, batch, progress=progress, weights=WEIGHTS, **options)


def objectness(adversary, images):
    with evaluation_mode(adversary.model), torch.no_grad():
        return adversary.model(images)[0].sigmoid().mean((1, 2, 3))


def test_the_network_detects_less_in_each_image():
    adversary, images = make(strength=0.02), 0.2 + 0.6 * torch.rand(4, 3, 12, 12)
    before = objectness(adversary, images)
    assert (objectness(adversary, changed(adversary, images)) < before).all()


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_perturbation_has_the_given_strength(progress):
    images = 0.4 + 0.2 * torch.rand(3, 3, 12, 12)  # far from the ends, where nothing is clamped
    change = changed(make(strength=0.01), images, progress) - images
    assert change.square().mean((1, 2, 3)).sqrt().tolist() == pytest.approx(
        [0.01 * progress] * 3, rel=1e-3, abs=1e-7
    )


def test_perturbed_images_stay_in_range_and_the_input_is_unchanged():
    images = torch.rand(2, 3, 12, 12).round()
    before = images.clone()
    out = changed(make(strength=0.5), images)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(images, before)
    assert not out.requires_grad
    assert not images.requires_grad


def test_only_the_image_changes():
    """Weights, their gradients, running statistics, generators and modes are as they were."""
    adversary = make()
    model = adversary.model
    model.body[1].eval()  # a frozen one
    loss = model(torch.rand(2, 3, 12, 12))[0].square().mean()
    loss.backward()  # gradients of an earlier, accumulated batch
    state = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    generator = torch.get_rng_state()
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(changed(adversary, images), images)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_image_is_perturbed_equally_alone_and_in_a_batch():
    adversary, images = make(), torch.rand(3, 3, 12, 12)
    together = changed(adversary, images)
    for i in range(3):
        alone = changed(adversary, images[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_a_scaled_loss_gives_the_same_images():
    adversary, images = make(), torch.rand(2, 3, 12, 12)
    plain = changed(adversary, images)
    for factor in (2.0**16, 2.0**-40):
        out = changed(adversary, images, scale=lambda loss, f=factor: loss * f)
        torch.testing.assert_close(out, plain, atol=1e-5, rtol=0)


def test_an_image_without_a_finite_gradient_is_unchanged():
    adversary, images = make(), torch.rand(2, 3, 12, 12)
    for factor in (0.0, float("inf")):
        out = changed(adversary, images, scale=lambda loss, f=factor: loss * f)
        assert torch.equal(out, images)


def test_under_autocast():
    out = changed(make("bf16"), torch.rand(2, 3, 12, 12))
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_the_choice_comes_from_seed_epoch_and_number():
    adversary = make(share=0.3)
    chosen = [[adversary.applies_to(epoch, n) for n in range(1000)] for epoch in (0, 1)]
    assert chosen == [[adversary.applies_to(epoch, n) for n in range(1000)] for epoch in (0, 1)]
    assert chosen[0] != chosen[1]
    assert chosen[0] != [make(share=0.3, seed=4).applies_to(0, n) for n in range(1000)]
    assert sum(chosen[0]) / 1000 == pytest.approx(0.3, abs=0.05)
    assert all(make(share=1.0).applies_to(0, n) for n in range(50))
    assert not any(make(share=0.0).applies_to(0, n) for n in range(50))
