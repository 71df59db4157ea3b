import copy
import math
import time

import numpy as np
import pytest
import torch

from detector.engine import TRACKERS, Stopped, TrackerLog, require_trackers
from detector.engine.observers.throughput import Throughput
from detector.engine.observers.trackers import compute_norms, get_learning_rates
from detector.errors import UserError
from tests.engine.small_trainer import StopAtStep, bits, make

CHANGING = ("speed/", "memory/")  # from run to run


class MemoryTracker:
    """A tracker that keeps all: (name, step) -> value; a duplicate point is an error."""

    def __init__(self, points, first):
        self.points, self.images, self.finished = points, [], 0
        for name, step in list(points):
            if step >= first > 0:
                del points[name, step]

    def log_scalars(self, step, values):
        for name, value in values.items():
            assert (name, step) not in self.points
            self.points[name, step] = value

    def log_image(self, step, name, image):
        self.images.append((step, name, image))

    def finish(self):
        self.finished += 1


def log_to(points, norms_every=1):
    return TrackerLog([lambda first: MemoryTracker(points, first)], norms_every=norms_every)


def steady(points):
    return {key: value for key, value in points.items() if not key[0].startswith(CHANGING)}


def test_trackers_do_not_change_training():
    plain, watched = make(), make(observers=[log_to({})])
    plain.run(), watched.run()
    assert all(torch.equal(a, b) for a, b in zip(bits(plain), bits(watched), strict=True))


def test_points_of_a_run():
    points = {}
    trainer = make(epochs=2, observers=[log_to(points)])
    trainer.run()
    assert points["loss/a", 3] == trainer.progress.history[0]["loss_a"]
    assert points["loss/total", 6] == sum(
        trainer.progress.history[1][f"loss_{name}"] for name in "ab"
    )
    assert points["metrics/AP", 6] == trainer.progress.history[1]["AP"]
    assert ("metrics/AP", 3) not in points  # not evaluated
    assert points["epoch", 3] == 1
    assert points["lr/weight", 6] == trainer.optimizer.param_groups[0]["lr"]
    assert points["memory/peak_gb", 1] > 0
    # a step after two batches, and one after the third, the epoch's last
    assert [s for n, s in points if n == "gradient_norm/0"] == [2, 5]


@pytest.mark.parametrize("norms_every", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_resumed_run_has_each_point_once(step, accumulate, norms_every):
    whole, parts = {}, {}
    make(accumulate=accumulate, observers=[log_to(whole, norms_every)]).run()
    stop = StopAtStep(step)
    with pytest.raises(Stopped):
        make(accumulate=accumulate, observers=[log_to(parts, norms_every), stop]).run()
    resumed = make(accumulate=accumulate, observers=[log_to(parts, norms_every)])
    resumed.load_state_dict(stop.state)
    resumed.run()
    assert steady(parts) == steady(whole)


def test_a_run_that_was_killed_after_its_checkpoint_has_each_point_once():
    """It logged points after its checkpoint; the resumed run logs them again."""
    whole, parts, states = {}, {}, []

    class Keep(StopAtStep):
        def on_step(self, trainer):
            if trainer.progress.batch == 2:
                states.append(copy.deepcopy(trainer.state_dict()))

        def on_train_epoch_end(self, trainer):
            states.append(copy.deepcopy(trainer.state_dict()))

        def on_epoch(self, trainer, report):
            states.append(copy.deepcopy(trainer.state_dict()))

    make(observers=[log_to(whole), Keep(0)]).run()
    for state in states[:]:
        parts = dict(whole)
        resumed = make(observers=[log_to(parts)])
        resumed.load_state_dict(state)
        resumed.run()
        assert steady(parts) == steady(whole)
    assert len(states) == 3 * 3 - 1  # the third epoch ends with its evaluation


def test_a_tracker_that_fails_is_dropped_with_a_warning(capsys):
    class Broken(MemoryTracker):
        def log_scalars(self, step, values):
            raise ConnectionError("no route to host")

    points = {}
    log = TrackerLog(
        [lambda first: Broken({}, first), lambda first: MemoryTracker(points, first)], norms_every=0
    )
    make(epochs=1, observers=[log]).run()
    assert points["epoch", 3] == 1
    out = capsys.readouterr().out
    assert out.count("Broken failed (no route to host); training continues without it") == 1


def test_a_tracker_that_cannot_be_opened_ends_the_run_before_it_starts():
    def open_at(first):
        raise ConnectionError("no route to host")

    with pytest.raises(UserError, match=r"train\.log: open_at failed to start: no route"):
        make(observers=[TrackerLog([open_at], norms_every=0)]).run()


def test_trackers_are_closed_however_a_run_ends():
    opened = []

    def open_at(first):
        opened.append(MemoryTracker({}, first))
        return opened[-1]

    log = TrackerLog([open_at], norms_every=0)
    with pytest.raises(ZeroDivisionError):
        make(observers=[log], evaluate=lambda _: 1 / 0).run()
    assert opened[0].finished == 1


def test_pictures_are_logged_at_the_number_of_batches():
    opened = []

    def open_at(first):
        opened.append(MemoryTracker({}, first))
        return opened[-1]

    log = TrackerLog([open_at], norms_every=0)

    class Show(StopAtStep):
        def on_epoch(self, trainer, report):
            log.log_image(trainer, "val", np.zeros((2, 2, 3), np.uint8))

    make(observers=[log, Show(0)]).run()
    assert [(step, name) for step, name, _ in opened[0].images] == [
        (3, "val"),
        (6, "val"),
        (9, "val"),
    ]


def test_norms_equal_their_definition():
    trainer = make()
    trainer.model(torch.rand(2, 3, 8, 8)).sum().mul(8.0).backward()
    norms = compute_norms(trainer.model, scale=8.0)
    for name, part in trainer.model.named_children():
        parameters = list(part.parameters())
        if not parameters:
            assert f"weight_norm/{name}" not in norms
            continue
        squares = sum(p.double().square().sum().item() for p in parameters)
        slopes = sum((p.grad.double() / 8).square().sum().item() for p in parameters)
        assert norms[f"weight_norm/{name}"] == pytest.approx(math.sqrt(squares), rel=1e-5)
        assert norms[f"gradient_norm/{name}"] == pytest.approx(math.sqrt(slopes), rel=1e-4)


def test_learning_rates_are_the_optimizers():
    trainer = make()
    trainer.optimizer.param_groups[0]["factor"] = 0.5
    rates = get_learning_rates(trainer, 4)
    settings = trainer.schedule.settings_at(4)
    assert rates["lr/weight_x0.5"] == settings.lr * 0.5
    assert rates["lr/bias"] == settings.bias_lr


def test_throughput(monkeypatch):
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr(
        "detector.engine.observers.throughput.time.perf_counter", lambda: next(clock)
    )
    throughput = Throughput()
    assert throughput.measure() is None
    throughput.count(8), throughput.count(8)
    assert throughput.measure() == (8.0, 1.0)
    throughput.count(4)
    assert throughput.measure() == (4.0, 1.0)
    assert throughput.measure() is None


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'mlflow is not installed: pip install -e "\.\[mlflow\]"'):
        require_trackers(["mlflow"])
    require_trackers([])


# Each of the real ones, offline.


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    """Undoes the variables that `require_trackers` sets; hides those of the machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def run_in_two_parts(name, folder):
    """A run that is stopped after its fourth step and resumed -> the points of an uninterrupted run."""
    require_trackers([name])
    whole = {}
    make(observers=[log_to(whole)]).run()

    def log():
        return TrackerLog([lambda first: TRACKERS[name](folder, {"a": 1}, first)], norms_every=1)

    class Show(StopAtStep):
        def on_epoch(self, trainer, report):
            first.log_image(trainer, "val", np.full((8, 8, 3), 200, np.uint8))

    first, stop = log(), Show(4)
    with pytest.raises(Stopped):
        make(observers=[first, stop]).run()
    resumed = make(observers=[log()])
    resumed.load_state_dict(stop.state)
    resumed.run()
    return steady(whole)


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path, quiet):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole = run_in_two_parts("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith(CHANGING)]
    points = [(name, point.step) for name in names for point in events.Scalars(name)]
    assert sorted(points) == sorted(whole)
    for name in names:
        for point in events.Scalars(name):
            assert point.value == pytest.approx(whole[name, point.step], rel=1e-6)
    assert [image.step for image in events.Images("val")] == [3]


def test_tensorboard_drops_what_a_killed_run_logged_after_its_checkpoint(tmp_path, quiet):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = TRACKERS["tensorboard"](tmp_path, {}, 0)
    for step in (1, 2, 3):
        killed.log_scalars(step, {"loss": 1.0})
    TRACKERS["tensorboard"](tmp_path, {}, 3).log_scalars(3, {"loss": 2.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(p.step, p.value) for p in events.Scalars("loss")] == [(1, 1.0), (2, 1.0), (3, 2.0)]
    killed.finish()


@pytest.mark.filterwarnings("default")
def test_mlflow_shows_a_resumed_run_as_one(tmp_path, quiet):
    pytest.importorskip("sqlalchemy")
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path / "run"
    folder.mkdir()
    whole = run_in_two_parts("mlflow", folder)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    number = client.get_experiment_by_name("detector").experiment_id
    (run,) = client.search_runs([number])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    points = {
        (name, point.step): point.value
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    assert steady(points) == whole
    history = client.get_metric_history(run.info.run_id, "loss/a")
    assert len(history) == len({point.step for point in history})


@pytest.mark.filterwarnings("default")
def test_wandb_keeps_a_resumed_run_under_one_id(tmp_path, quiet):
    pytest.importorskip("wandb")
    run_in_two_parts("wandb", tmp_path)
    name = (tmp_path / ".wandb_id").read_text()
    wanted, end = {b"loss/total", b"gradient_norm/0", b"metrics/AP"}, time.monotonic() + 20
    while time.monotonic() < end:  # its own process brings the last lines to the disk
        files = list((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
        written = b"".join(file.read_bytes() for file in files)
        if all(word in written for word in wanted):
            return
        time.sleep(0.1)
    pytest.fail(f"not all of {wanted} in {files}")
