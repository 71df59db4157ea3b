"""The line that says what a run waits for."""

from types import SimpleNamespace

import pytest
import torch

from detector.build import build_meter
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


def run(clock, told, *, batches, workers, waited, learning, making, reading, size=1):
    """Batches of 8 that take so long each -> what was announced."""
    events = []
    trainer = SimpleNamespace(
        waited=waited,
        process_group=ProcessGroup(0, size),
        announce=lambda event, **values: events.append((event, values)),
    )
    for number in range(batches):
        clock.now += waited
        told.on_batch(trainer, 0, number, batch(8, reading, making))
        clock.now += learning
    told.on_train_epoch_end(trainer)
    return events


def test_the_network_is_the_limit(clock, capsys):
    told = ThroughputMonitor(workers=2, advice="more")
    events = run(
        clock, told, batches=40, workers=2, waited=0.0, learning=0.5, making=0.2, reading=0.15
    )
    assert events == [("speed", pytest.approx({"loader": 80, "network": 16, "reading": 0.75}))]
    line = "images/s: loader 80 (75% of it reading files), network 16: the network is the limit\n"
    assert capsys.readouterr().out == line


def test_the_loader_is_the_limit_and_where(clock, capsys):
    told = ThroughputMonitor(workers=1, advice="data.cache=ram")
    run(clock, told, batches=40, workers=1, waited=0.3, learning=0.1, making=0.4, reading=0.3)
    out = capsys.readouterr().out
    assert "loader 20 (75% of it reading files), network 80: the loader is the limit" in out
    assert "most of all reading files; try data.cache=ram" in out

    told = ThroughputMonitor(workers=10**6, advice="data.cache=ram")
    run(clock, told, batches=40, workers=1, waited=0.3, learning=0.1, making=4e6, reading=1e6)
    assert "most of all augmenting; try a smaller bag" in capsys.readouterr().out


def test_without_workers_they_take_turns(clock, capsys):
    told = ThroughputMonitor(workers=0, advice="")
    run(clock, told, batches=40, workers=0, waited=0.1, learning=0.3, making=0.1, reading=0.05)
    out = capsys.readouterr().out
    assert "loader 80 (50% of it reading files), network 27; data.workers=0: they take turns" in out


def test_several_processes_count_together_and_a_short_epoch_is_enough(clock):
    told = ThroughputMonitor(workers=1, advice="")
    events = run(
        clock,
        told,
        batches=5,
        workers=1,
        waited=0.0,
        learning=0.5,
        making=0.2,
        reading=0.1,
        size=2,
    )
    assert events == [("speed", pytest.approx({"loader": 80, "network": 32, "reading": 0.5}))]
    assert run(clock, told, batches=30, workers=1, waited=0, learning=1, making=1, reading=0) == []


@pytest.mark.parametrize(("batch", "positions"), [(2, 16), (16, 64)])
def test_what_it_advises_is_accepted(batch, positions):
    config = load_config("yolov4-pacsp-n-mish", [f"train.batch_size={batch}"])
    word = build_meter(config).advice.split(", ")[-1]
    assert word == f"data.tile_buffer={positions}"
    assert load_config("yolov4-pacsp-n-mish", [word]).data.tile_buffer == positions


def test_too_few_batches_say_nothing(clock, capsys):
    told = ThroughputMonitor(workers=1, advice="")
    assert not run(clock, told, batches=3, workers=1, waited=0, learning=1, making=1, reading=1)
    assert capsys.readouterr().out == ""
