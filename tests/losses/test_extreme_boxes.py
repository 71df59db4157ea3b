"""Box losses of every raw value that a network can give: finite, and those of float64."""

import pytest
import torch

from detector.decode import Decoder
from detector.losses import BOX_LOSSES

DECODERS = {"sigmoid": Decoder(), "exp": Decoder("exp", (1.0,))}
RAW = [-50.0, -20.0, -12.0, -8.4, -7.0, -6.6, -3.0, 0.0, 3.0, 8.0, 20.0, 50.0]


def cases(dtype):
    """Raw sizes x raw centres x cells up to 1200 px away x target sizes: raw [m, 4], cells, targets."""
    sizes = torch.tensor(RAW)
    w, h, xy, cell, target = torch.meshgrid(
        sizes,
        sizes,
        torch.tensor([-50.0, 0.0, 50.0]),
        torch.tensor([0.0, 75.0, 150.0]),
        torch.tensor([1e-3, 0.25, 4.0, 150.0]),
        indexing="ij",
    )
    columns = [each.reshape(-1) for each in (xy, -xy, w, h)]
    raw = torch.stack(columns, -1).to(dtype)
    cells = torch.stack([cell.reshape(-1)] * 2, -1).to(dtype)
    size = target.reshape(-1, 1).to(dtype)
    return raw, cells, torch.cat([cells + 0.4, size, size * 0.7], -1)


def compute(name, decoder, dtype):
    raw, cells, targets = cases(dtype)
    raw.requires_grad_()
    anchors = torch.tensor([1.5, 2.0], dtype=dtype)
    boxes = decoder.decode_cells(0, raw, cells, anchors, 1.0)
    losses = BOX_LOSSES[name](boxes, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), raw)
    return losses.detach(), gradient


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["ciou", "giou", "diou", "eiou", "siou"])
def test_every_raw_value_has_a_finite_loss_and_gradient(name, decoder):
    losses, gradient = compute(name, DECODERS[decoder], torch.float32)
    wanted, slopes = compute(name, DECODERS[decoder], torch.float64)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-3, atol=1e-3)
    # IoU of small boxes far from the origin: their corners have few digits in float32
    off = (gradient.double() - slopes).abs() > 1e-2 * (1 + slopes.abs())
    assert off.float().mean() < 0.02
