import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from detector.engine import (
    Console,
    CsvLog,
    Hardware,
    ModelEMA,
    Observer,
    Schedule,
    Stopped,
    sgd,
)
from detector.errors import UserError
from tests.engine.small_trainer import Loader, StopAtStep, batch_of, equal, make


def test_random_layers_continue_with_the_same_draws():
    """Dropout, a random activation: a checkpoint holds the generators."""
    first = make()
    state = copy.deepcopy(first.state_dict())
    drawn = torch.rand(5)
    other = make()
    torch.manual_seed(99)
    other.load_state_dict(state)
    assert torch.equal(torch.rand(5), drawn)


class Stop(Exception):
    pass


class StopAfter(Observer):
    def __init__(self, epoch):
        self.epoch, self.state = epoch, None

    def on_epoch(self, trainer, report):
        if report.epoch == self.epoch:
            self.state = copy.deepcopy(trainer.state_dict())
            raise Stop


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_resumed_run_ends_with_the_same_bits(epoch):
    whole = make()
    whole.run()

    stop = StopAfter(epoch)
    with pytest.raises(Stop):
        make(observers=[stop]).run()
    torch.manual_seed(99)
    resumed = make()
    resumed.load_state_dict(stop.state)
    resumed.run()
    assert equal(whole, resumed)
    assert resumed.progress.best_ap == whole.progress.best_ap


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_resumed_in_the_middle_of_an_epoch_ends_with_the_same_bits(step, accumulate):
    reports = {"whole": [], "resumed": []}

    class Note(Observer):
        def __init__(self, name):
            self.rows = reports[name]

        def on_epoch(self, trainer, report):
            self.rows.append({k: v for k, v in report.row().items() if k != "seconds"})

    whole = make(accumulate=accumulate, observers=[Note("whole")])
    whole.run()
    stop = StopAtStep(step)
    with pytest.raises(Stopped, match="enough"):
        make(accumulate=accumulate, observers=[stop, Note("resumed")]).run()
    torch.manual_seed(99)
    resumed = make(accumulate=accumulate, observers=[Note("resumed")])
    assert resumed.load_state_dict(stop.state) == []
    resumed.run()
    assert equal(whole, resumed)
    assert (
        reports["resumed"] == reports["whole"]
    )  # also the losses of the epoch in which the run was resumed


def test_a_run_of_two_ranks_resumes_on_one():
    """It reports what will differ, and has the losses of both ranks in the epoch so far."""
    reports = {}

    class Note(Observer):
        def __init__(self, name):
            self.name = name

        def on_epoch(self, trainer, report):
            reports.setdefault(self.name, []).append(report.losses)

    make(epochs=1, observers=[Note("whole")]).run()
    stop = StopAtStep(1)
    with pytest.raises(Stopped):
        make(epochs=1, observers=[stop]).run()
    state = copy.deepcopy(stop.state)
    assert state["progress"]["batch"] < 3
    state["generators"] *= 2
    (totals,) = state["progress"]["totals"]
    state["progress"]["totals"] = [
        {name: share * value for name, value in totals.items()} for share in (0.25, 0.75)
    ]
    resumed = make(epochs=1, observers=[Note("resumed")])
    (line,) = resumed.load_state_dict(state)
    assert line.startswith("the run resumes on 1 rank instead of 2: sums are rounded differ")
    resumed.run()
    assert reports["resumed"][0] == pytest.approx(reports["whole"][0])


def test_an_evaluation_is_stopped_at_once_and_repeated():
    started = []

    def evaluate(model):
        started.append(1)
        if len(started) == 1:
            trainer.stop("now")  # raises nothing by itself: a signal comes anywhere
            started.append("after")
            model(torch.zeros(2, 3, 8, 8))
            pytest.fail("it went on")
        return {"AP": 0.5}

    states = []

    class Keep(Observer):
        def on_train_epoch_end(self, trainer):
            states.append(copy.deepcopy(trainer.state_dict()))

    trainer = make(epochs=2, evaluate=evaluate, observers=[Keep()])
    with pytest.raises(Stopped, match="now"):
        trainer.run()
    resumed = make(epochs=2, evaluate=evaluate)
    resumed.load_state_dict(states[0])
    assert (resumed.progress.epoch, resumed.progress.batch) == (1, 3)  # nothing left to train
    resumed.run()
    assert started == [1, "after", 1]
    assert equal(trainer, resumed)


def test_every_generator_continues():
    first = make()
    state = copy.deepcopy(first.state_dict())
    drawn = random.random(), np.random.rand(), torch.rand(2)  # noqa: NPY002
    random.seed(5), np.random.seed(5)  # noqa: NPY002
    make().load_state_dict(state)
    again = random.random(), np.random.rand(), torch.rand(2)  # noqa: NPY002
    assert again[:2] == drawn[:2]
    assert torch.equal(again[2], drawn[2])


def test_observers_do_not_change_training(tmp_path):
    plain, watched = make(), make(observers=[Console(), CsvLog(tmp_path / "r.csv")])
    plain.run(), watched.run()
    assert equal(plain, watched)


def test_accumulated_batches_equal_one_large_batch():
    """Without BatchNorm, whose statistics are the batch's own."""

    class Large(Loader):
        sizes = (8,)

    class Small(Loader):
        sizes = (3, 5)

        def all(self, number):
            (large,) = Large().epoch(number)
            return iter([batch_of(large.images[:3]), batch_of(large.images[3:])])

    results = []
    for loader, accumulate in ((Large(), 1), (Small(), 2)):
        trainer = make(1, loader, accumulate=accumulate)
        trainer.model[1] = nn.Identity()
        trainer.step.ema = ModelEMA(trainer.model, decay=0.9, warmup=3.0)
        trainer.step.optimizer = sgd(trainer.model, lr=0.1, momentum=0.9, weight_decay=0.0)
        trainer.schedule = trainer.step.schedule = Schedule(
            len(loader), 1, 0.05, 1.0, 0.9, 0, 0.9, 0.05, accumulate
        )
        trainer.run()
        results.append(trainer.model[0].weight.detach())
    assert torch.allclose(*results, atol=1e-7)


def test_reports(tmp_path):
    reports = []

    class Note(Observer):
        def on_epoch(self, trainer, report):
            reports.append(report)

    values = iter([0.5, 0.25])
    make(
        epochs=3,
        observers=[Note(), CsvLog(tmp_path / "r.csv")],
        evaluate=lambda _: {"AP": next(values)},
    ).run()
    assert [bool(r.metrics) for r in reports] == [False, True, True]  # every 2, and the last
    assert [r.best for r in reports] == [False, True, False]
    assert set(reports[0].losses) == {"a", "b"}
    columns = [list(report.row())[4:] for report in reports]  # the same places in all runs
    assert columns == [["seconds"], ["seconds", "AP"], ["seconds", "AP"]]
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss_a,loss_b,lr,seconds,AP"
    assert len(lines) == 4
    assert lines[2].endswith("0.500000")


def test_the_csv_of_a_resumed_run_has_each_epoch_once(tmp_path):
    path = tmp_path / "r.csv"
    make(epochs=3, observers=[CsvLog(path)]).run()
    make(epochs=2, observers=[CsvLog(path)]).run()
    rows = path.read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


def test_a_nan_loss_stops_the_run():
    trainer = make()
    with torch.no_grad():
        trainer.model[0].weight.fill_(float("nan"))
    message = r"non-finite loss or gradient \(epoch 1, batch 2: .*train\.lr"
    with pytest.raises(UserError, match=message) as caught:
        trainer.run()
    assert "precision" not in str(caught.value)  # it is fp32 already


def test_empty_batches_are_skipped():
    class Gaps(Loader):
        def all(self, number):
            good = next(iter(super().all(number)))
            return iter([batch_of(good.images[:0]), good, batch_of(good.images[:0])])

    trainer = make(1, Gaps(), accumulate=3)
    before = copy.deepcopy(trainer.model[0].weight)
    trainer.run()
    assert not torch.equal(before, trainer.model[0].weight)

    class Nothing(Loader):
        def all(self, number):
            return iter([batch_of(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))] * 3)

    with pytest.raises(UserError, match="no image of epoch 1 can be read"):
        make(1, Nothing()).run()


def test_bf16_trains():
    trainer = make(hardware=Hardware.choose("cpu", "bf16", channels_last=False))
    trainer.run()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


def test_missing_hardware_is_refused():
    for name in ("cuda:99", "nonsense", "meta", "hpu"):
        with pytest.raises(UserError, match=f"device '{name}' cannot be used: .*; try cpu"):
            Hardware.choose(name, "auto", channels_last=True)
    with pytest.raises(UserError, match="fp16 is not supported on CPUs"):
        Hardware.choose("cpu", "fp16", channels_last=True)
