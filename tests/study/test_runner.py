"""The runner, with a stand-in for training: what it starts, resumes, stops and reports."""

import json
import os

import pytest

from detector.study.plan import find_run_folder
from detector.study.runner import Machine, Runner, select_environment
from tests.study.made_up import make_study, write_fake_train, write_run


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.setattr("detector.study.runner.POLL", 0.01)
    return Runner(
        study=make_study(seeds=(0, 1), words=("train.epochs=1",)),
        folder=tmp_path,
        command=write_fake_train(tmp_path),
        machine=Machine(("3", "5"), 8),
        jobs=4,
        epochs={"mish": 1, "relu": 1},
        environment=dict(os.environ),
    )


def read_calls(folder):
    return [json.loads(line) for line in (folder / "calls.txt").read_text().splitlines()]


def test_gpus_by_turns_and_cores_shared(runner, tmp_path, capsys):
    assert runner.run(runner.study.list_runs())
    calls = sorted(read_calls(tmp_path))
    assert [name for name, *_ in calls] == ["mish-seed0", "mish-seed1", "relu-seed0", "relu-seed1"]
    assert sorted(gpu for _, _, gpu, _, _ in calls) == ["3", "3", "5", "5"]
    assert {threads for _, _, _, threads, _ in calls} == {"2"}
    words = calls[2][-1]
    assert words[:2] == ["--cfg", "yolov4-pacsp-n-mish"]
    assert words[2:5] == ["train.epochs=1", "model.activation=relu", "train.seed=0"]
    out = capsys.readouterr().out
    assert "relu-seed1: AP 51.0; " in out
    assert "0 running, 0 waiting, 4 epochs" in out


def test_sixteen_jobs_on_one_gpu():
    machine = Machine(("0",), 16)
    given = [machine.make_environment(slot, 16) for slot in range(16)]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in given} == {"0"}
    assert {each["OMP_NUM_THREADS"] for each in given} == {"1"}
    assert "CUDA_VISIBLE_DEVICES" not in Machine((), 16).make_environment(0, 4)
    assert machine.describe(16) == "16 at a time on 1 GPU, 1 CPU thread each"


def test_gpus_that_a_scheduler_gave(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert Machine.detect(2).gpus == ("4", "6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Machine.detect(2).gpus == ("0", "1")


def test_finished_runs_are_not_repeated_and_killed_ones_resume(runner, tmp_path):
    first, second = runner.study.list_runs()[:2]
    write_run(find_run_folder(tmp_path, first), [0.5])
    folder = find_run_folder(tmp_path, second)
    write_run(folder, [0.5], finished=False)
    folder.last.write_text("a checkpoint")
    assert "4 runs of 2 arms (mish, relu), 1 finished" in runner.describe_budget(
        runner.study.list_runs()
    )
    assert runner.run([first, second])
    ((name, resumed, _, _, words),) = read_calls(tmp_path)
    assert (name, resumed, words) == (second.name, True, ["--resume", str(folder.path)])


def test_a_run_that_fails_does_not_stop_the_others(runner, tmp_path, capsys):
    (tmp_path / "fail").touch()
    assert runner.run(runner.study.list_runs())
    assert sorted(run.name for run in runner.failed) == ["relu-seed0", "relu-seed1"]
    out = capsys.readouterr().out
    assert "relu-seed0: failed (status 1)" in out
    assert "    error: it fails" in out
    assert runner.is_finished(runner.study.list_runs()[0])


def test_the_time_limit_stops_all(runner, tmp_path):
    (tmp_path / "slow").touch()
    assert not runner.run(runner.study.list_runs(), time_limit=0.3)
    assert runner._jobs == []
    assert not any(runner.is_finished(run) for run in runner.study.list_runs())


def test_the_variables_of_an_outer_job_stay_outside():
    outer = {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x", "PATH": "/bin"}
    assert select_environment(outer) == {"PATH": "/bin"}
