"""The line on the throughput of loader and network and on the bottleneck."""

from types import SimpleNamespace

import pytest
import torch

from detector.build import build_throughput_monitor
from detector.config import load_config
from detector.engine import ProcessGroup, ThroughputMonitor
from detector.engine.observers import throughput
from detector.structures import Batch, LoadTime


def batch(images, reading, making):
    none = torch.zeros(0)
    return Batch(
        torch.zeros(images, 1), none, none, none, none, none, [], seconds=LoadTime(reading, making)
    )


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def run(clock, monitor, *, batches, workers, waited, learning, making, reading, size=1):
    """Runs batches of 8 with these times, in seconds; returns the announced event."""
    events = []
    trainer = SimpleNamespace(
        loader_seconds=waited,
        process_group=ProcessGroup(0, size),
        announce=lambda event, **values: events.append((event, values)),
    )
    for number in range(batches):
        clock.now += waited
        monitor.on_batch(trainer, 0, number, batch(8, reading, making))
        clock.now += learning
    monitor.on_train_epoch_end(trainer)
    return events


def test_the_network_is_the_bottleneck(clock, capsys):
    monitor = ThroughputMonitor(workers=2, advice="more")
    events = run(
        clock, monitor, batches=40, workers=2, waited=0.0, learning=0.5, making=0.2, reading=0.15
    )
    assert events == [("speed", pytest.approx({"loader": 80, "network": 16, "reading": 0.75}))]
    assert capsys.readouterr().out == (
        "throughput: loader 80 images/s (75% reading files), network 16 images/s; bottleneck: network\n"
    )


def test_the_loader_is_the_bottleneck_and_why(clock, capsys):
    monitor = ThroughputMonitor(workers=1, advice="data.cache=ram")
    run(clock, monitor, batches=40, workers=1, waited=0.3, learning=0.1, making=0.4, reading=0.3)
    out = capsys.readouterr().out
    assert "loader 20 images/s (75% reading files), network 80 images/s; bottleneck: loader" in out
    assert (
        "bottleneck: loader, mostly reading files; try data.cache=ram (up to 4.0 times as fast)"
        in out
    )

    monitor = ThroughputMonitor(workers=10**6, advice="data.cache=ram")
    run(clock, monitor, batches=40, workers=1, waited=0.3, learning=0.1, making=4e6, reading=1e6)
    out = capsys.readouterr().out
    assert "bottleneck: loader, mostly augmentation; try a lighter bag of augmentations" in out


def test_without_workers_loading_and_training_alternate(clock, capsys):
    monitor = ThroughputMonitor(workers=0, advice="")
    run(clock, monitor, batches=40, workers=0, waited=0.1, learning=0.3, making=0.1, reading=0.05)
    out = capsys.readouterr().out
    assert "loader 80 images/s (50% reading files), network 27 images/s; data.workers=0: " in out
    assert "loading and training alternate; bottleneck: network" in out


def test_ranks_add_up_and_a_short_epoch_is_enough(clock):
    monitor = ThroughputMonitor(workers=1, advice="")
    events = run(
        clock,
        monitor,
        batches=5,
        workers=1,
        waited=0.0,
        learning=0.5,
        making=0.2,
        reading=0.1,
        size=2,
    )
    assert events == [("speed", pytest.approx({"loader": 80, "network": 32, "reading": 0.5}))]
    assert (
        run(clock, monitor, batches=30, workers=1, waited=0, learning=1, making=1, reading=0) == []
    )


@pytest.mark.parametrize(("batch", "positions"), [(2, 16), (16, 64)])
def test_its_advice_is_a_valid_setting(batch, positions):
    config = load_config("yolov4-pacsp-n-mish", [f"train.batch_size={batch}"])
    word = build_throughput_monitor(config, None).advice.split(", ")[-1]
    assert word == f"data.tile_buffer={positions}"
    assert load_config("yolov4-pacsp-n-mish", [word]).data.tile_buffer == positions


def test_too_few_batches_print_nothing(clock, capsys):
    monitor = ThroughputMonitor(workers=1, advice="")
    assert not run(clock, monitor, batches=3, workers=1, waited=0, learning=1, making=1, reading=1)
    assert capsys.readouterr().out == ""
