"""Directions and grids of a loss landscape, on a loss that is known."""

import numpy as np
import pytest
import torch
from torch import nn

from detector.errors import UserError
from detector.evaluation.loss_grid import (
    ValueGrid,
    compute_grid,
    digest_weights,
    draw_direction,
)

AXIS = np.array([-1.0, 0.0, 1.0])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1))


def draw(net, seed=0):
    return draw_direction(net, torch.Generator().manual_seed(seed))


def test_each_filter_of_a_direction_has_the_norm_of_the_networks(net):
    direction = draw(net)
    assert set(direction) == {"0.weight", "2.weight"}  # no vectors
    for name, moved in direction.items():
        own = net.get_parameter(name)
        torch.testing.assert_close(moved.flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))
    with torch.no_grad():
        net[0].weight[1] *= 10  # other norms, the same random numbers
    torch.testing.assert_close(draw(net)["0.weight"][1], 10 * direction["0.weight"][1])
    assert not torch.equal(draw(net, 1)["0.weight"], draw(net)["0.weight"])


def squared_weights(net):
    return float(sum((p.detach().double() ** 2).sum() for p in net.parameters()))


def test_values_are_those_of_the_moved_weights_and_the_weights_are_put_back(net, tmp_path):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    directions = [draw(net), draw(net, 1)]
    grid = ValueGrid(tmp_path / "a.npz", [AXIS, AXIS], {"of": "a test"})
    compute_grid(net, directions, grid, squared_weights)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    own = squared_weights(net)
    assert grid.values[1, 1] == pytest.approx(own)
    weights = [before[name].double() for name in directions[0]]
    moved = [
        w - one + two
        for w, one, two in zip(weights, directions[0].values(), directions[1].values(), strict=True)
    ]
    added = sum(float((m**2).sum() - (w**2).sum()) for m, w in zip(moved, weights, strict=True))
    assert grid.values[0, 2] == pytest.approx(own + added, rel=1e-5)


def test_an_interrupted_grid_is_resumed(net, tmp_path):
    calls = []

    def loss(model):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(squared_weights(model))
        return calls[-1]

    path, directions = tmp_path / "a.npz", [draw(net)]
    with pytest.raises(KeyboardInterrupt):
        compute_grid(net, directions, ValueGrid(path, [AXIS], {}, every=10), loss)
    grid = ValueGrid(path, [AXIS], {})
    assert grid.done.tolist() == [True, True, False]
    compute_grid(net, directions, grid, squared_weights)
    whole = ValueGrid(tmp_path / "b.npz", [AXIS], {})
    compute_grid(net, directions, whole, squared_weights)
    np.testing.assert_array_equal(grid.values, whole.values)


def test_files_of_other_computations(net, tmp_path):
    path = tmp_path / "a.npz"
    ValueGrid(path, [AXIS], {"weights": digest_weights(net)}).save()
    net[2].bias.data += 1
    with pytest.raises(UserError, match=r"a\.npz: has values of other weights"):
        ValueGrid(path, [AXIS], {"weights": digest_weights(net)})
    path.write_bytes(b"no numbers")
    with pytest.raises(UserError, match=r"a\.npz: not a file of values"):
        ValueGrid(path, [AXIS], {})
