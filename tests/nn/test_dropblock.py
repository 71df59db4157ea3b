import copy

import pytest
import torch

from detector.nn import DropBlock2d


def dropped(size, probability, shape, **options):
    """Which cells of a map of ones are dropped: bool [B, C, H, W]."""
    drop = DropBlock2d(block_size=size, target=probability).train()
    return drop(torch.ones(shape, **options)) == 0


@pytest.mark.parametrize("size", [1, 4, 7])
def test_every_cell_is_dropped_as_often_as_asked_for(size):
    frequency = dropped(size, 0.2, (64, 64, 14, 14)).float().mean((0, 1))  # [14, 14]
    assert frequency.mean() == pytest.approx(0.2, abs=0.01)
    assert (
        frequency - 0.2
    ).abs().max() < 0.04  # at the border, too: 5 standard deviations of 4096 draws


@pytest.mark.parametrize("size", [3, 4, 7])
def test_only_whole_squares_are_dropped(size):
    """Every dropped cell lies in a whole dropped square, as far as the map goes."""
    holes = dropped(size, 0.02, (1, 100, 40, 40))[0]
    beyond = torch.ones(100, 40 + 2 * size, 40 + 2 * size, dtype=torch.bool)
    beyond[:, size:-size, size:-size] = holes
    windows = beyond.unfold(1, size, 1).unfold(2, size, 1).flatten(-2).all(-1)
    covered = torch.zeros_like(beyond)
    for row in range(size):
        for column in range(size):
            h, w = windows.shape[1:]
            covered[:, row : row + h, column : column + w] |= windows
    assert holes.any()
    assert torch.equal(covered & beyond, beyond)
    alone = [hole for hole in holes if hole.sum() == size**2]
    for hole in alone:
        rows, columns = torch.nonzero(hole, as_tuple=True)
        assert rows.max() - rows.min() == columns.max() - columns.min() == size - 1
    assert alone


def test_each_channel_of_each_image_has_its_own_squares():
    holes = dropped(7, 0.3, (2, 2, 20, 20)).flatten(0, 1)
    assert all(not torch.equal(holes[i], holes[j]) for i in range(4) for j in range(i))


def test_kept_cells_are_scaled_to_the_same_mean():
    out = DropBlock2d(block_size=5, target=0.3).train()(torch.ones(4, 8, 20, 20))
    assert out.mean() == pytest.approx(1.0, abs=1e-5)
    assert out.unique().numel() == 2


def test_gradients_pass_through_kept_cells_only():
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    out = DropBlock2d(block_size=3, target=0.4).train()(x)
    out.sum().backward()
    kept = out != 0
    assert (x.grad[~kept] == 0).all()
    scale = kept.numel() / kept.sum()
    torch.testing.assert_close(x.grad[kept], scale.expand(int(kept.sum())))


def test_nothing_happens_in_evaluation_or_at_zero():
    x, before = torch.randn(1, 2, 9, 9), torch.get_rng_state()
    assert DropBlock2d(block_size=3, target=0.9).eval()(x) is x
    assert DropBlock2d(block_size=3, target=0.9, ramp=0.5).train()(x) is x  # the ramp starts at 0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ramp_is_linear_and_stays():
    drop = DropBlock2d(block_size=7, target=0.1, ramp=0.8)
    seen = []
    for progress in (0.0, 0.2, 0.4, 0.8, 1.0):
        drop.advance(progress)
        seen.append(drop.probability)
    assert seen == pytest.approx([0.0, 0.025, 0.05, 0.1, 0.1])
    drop = DropBlock2d(block_size=7, target=0.1)
    drop.advance(0.0)
    assert drop.probability == 0.1


def test_draws_come_from_torchs_generator():
    state, first = torch.get_rng_state(), dropped(3, 0.3, (1, 4, 12, 12))
    torch.set_rng_state(state)
    assert torch.equal(dropped(3, 0.3, (1, 4, 12, 12)), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_keep_their_type_and_scale(dtype):
    """More cells than float16 can count, and a scale that bfloat16 would round."""
    out = DropBlock2d(block_size=7, target=0.1).train()(torch.ones(8, 64, 16, 16, dtype=dtype))
    assert out.dtype == dtype
    assert out.float().mean() == pytest.approx(1.0, abs=4e-3)


def test_memory_format_stays():
    x = torch.randn(2, 8, 10, 10).to(memory_format=torch.channels_last)
    out = DropBlock2d(block_size=3, target=0.2).train()(x)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_maps_smaller_than_a_square_and_whole_maps_dropped():
    assert dropped(7, 0.5, (64, 64, 2, 3)).float().mean() == pytest.approx(0.5, abs=0.05)
    out = DropBlock2d(block_size=3, target=1 - 1e-12).train()(torch.ones(1, 1, 3, 3))
    assert torch.equal(out, torch.zeros(1, 1, 3, 3))


def test_dropblock_has_no_state_and_can_be_copied():
    drop = DropBlock2d(block_size=7, target=0.1)
    assert not drop.state_dict()
    assert repr(copy.deepcopy(drop)) == "DropBlock2d(block_size=7, probability=0.1)"
