import pytest
import torch
from torch import nn

from detector.engine import ModelEMA, Schedule, sgd
from detector.engine.schedule import apply_settings

SCHEDULE = Schedule(
    batches=100,
    epochs=10,
    lr=0.01,
    lr_final=0.1,
    momentum=0.9,
    warmup_batches=200,
    warmup_momentum=0.8,
    warmup_bias_lr=0.1,
    accumulate=4,
)


def test_start_and_end():
    first, last = SCHEDULE.settings_at(0), SCHEDULE.settings_at(1000)
    assert (first.lr, first.bias_lr, first.momentum, first.accumulate) == (0.0, 0.1, 0.8, 1)
    assert last.lr == pytest.approx(0.001)
    assert last.bias_lr == pytest.approx(last.lr)
    assert (last.momentum, last.accumulate) == (pytest.approx(0.9), 4)


def test_half_way_through_the_cosine():
    assert SCHEDULE.settings_at(500).lr == pytest.approx(0.01 * 0.55)


def test_the_warm_up_is_linear_and_joins_the_cosine():
    middle = SCHEDULE.settings_at(100)
    assert middle.momentum == pytest.approx(0.85)
    assert middle.accumulate == 2
    assert SCHEDULE.settings_at(199).lr == pytest.approx(SCHEDULE.settings_at(200).lr, rel=0.02)
    rates = [SCHEDULE.settings_at(batch).lr for batch in range(200, 1001)]
    assert rates == sorted(rates, reverse=True)


def test_no_warm_up():
    plain = Schedule(10, 1, 0.1, 1.0, 0.9, 0, 0.8, 0.5, 1)
    assert plain.settings_at(0).lr == pytest.approx(0.1)
    assert plain.settings_at(0).bias_lr == pytest.approx(0.1)


def test_settings_reach_the_groups():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = sgd(model, lr=1.0, momentum=0.5, weight_decay=0.25)
    apply_settings(optimizer, SCHEDULE.settings_at(100))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert groups["weight"]["lr"] == groups["gain"]["lr"] == SCHEDULE.settings_at(100).lr
    assert groups["bias"]["lr"] == SCHEDULE.settings_at(100).bias_lr
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "weight": 0.25,
        "gain": 0.0,
        "bias": 0.0,
    }
    assert all(group["momentum"] == pytest.approx(0.85) for group in groups.values())


def test_weight_average_is_the_formula():
    model = nn.BatchNorm2d(2)
    average = ModelEMA(model, decay=0.9, warmup=5.0)
    expected = model.weight.detach().clone()
    for step in range(6):
        with torch.no_grad():
            model.weight.add_(1.0)
            model.running_mean.add_(2.0)
            model.num_batches_tracked.add_(3)
        average.update_parameters(model)
        decay = 0.9 * (1 - torch.exp(torch.tensor(-step / 5.0)))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        assert torch.allclose(average.module.weight, expected)
    assert average.module.num_batches_tracked == model.num_batches_tracked
    assert average.module.running_mean[0] < model.running_mean[0]
    assert not average.module.training
