"""Which run is resumed, and what must not have changed since."""

import os
from pathlib import Path

import pytest

from detector.api.resume import (
    NEWEST,
    find_config_edits,
    find_resumable_run,
    require_same_config,
)
from detector.api.run_request import RunRequest
from detector.config import dump_config, load_config, replace_values
from detector.engine import ProcessGroup, RunFolder
from detector.errors import UserError

ALONE = ProcessGroup()


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """Runs a, a-2 and b, with the newest checkpoint in b; a-3 has none yet."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(["a-2", "a", "b", "a-3"]):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        if name != "a-3":
            (folder / "last.pt").touch()
            os.utime(folder / "last.pt", (age, age))
    return Path("runs")


def request(folder: Path) -> RunRequest:
    return RunRequest("yolov4-pacsp-n-mish", folder)


def test_a_run_is_named_by_its_folder_or_a_checkpoint_in_it(runs):
    for named in ("runs/a", "runs/a/last.pt", "runs/a/best.pt"):
        assert find_resumable_run(named, None, ALONE) == RunFolder(runs / "a")


def test_the_newest_run_in_all_folders_and_of_one_request(runs):
    assert find_resumable_run(NEWEST, None, ALONE) == RunFolder(runs / "b")
    assert find_resumable_run(NEWEST, request(runs / "a"), ALONE) == RunFolder(runs / "a")
    assert find_resumable_run(NEWEST, request(runs / "c"), ALONE) is None


def test_without_resume_only_a_job_restarted_by_torchrun_resumes(runs, monkeypatch):
    assert find_resumable_run(None, request(runs / "a"), ALONE) is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    RunFolder(runs / "a-2").write_job_id()
    assert find_resumable_run(None, request(runs / "a"), ALONE) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert find_resumable_run(None, request(runs / "a"), ALONE) == RunFolder(runs / "a-2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another job")
    assert find_resumable_run(None, request(runs / "a"), ALONE) is None


def test_no_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="runs: no run here"):
        find_resumable_run(NEWEST, None, ALONE)


def test_settings_that_differ_are_refused_by_name():
    config = load_config("yolov4-pacsp-n-mish")
    folder = RunFolder(Path("runs/a"))
    require_same_config(folder, config, config)
    auto = replace_values(config, {"train.batch_size": "auto", "model.anchors": "auto"})
    require_same_config(folder, config, auto)  # what the run has resolved since
    with pytest.raises(UserError, match=r"runs/a: its settings differ .*train.lr: 0.01, now 0.05"):
        require_same_config(folder, config, replace_values(config, {"train.lr": 0.05}))


def test_an_edited_config_is_reported(tmp_path):
    config, folder = load_config("yolov4-pacsp-n-mish"), RunFolder(tmp_path)
    folder.config.write_text(dump_config(config))
    assert find_config_edits(folder, config) == []
    folder.config.write_text(dump_config(replace_values(config, {"train.epochs": 7})))
    (line,) = find_config_edits(folder, config)
    assert line.startswith(f"{folder.config} is ignored when a run resumes")
    assert f"(train.epochs: {config.train.epochs}, now 7)" in line
    folder.config.write_text("train: {epochs: many}")
    assert "train.epochs: should be a valid integer" in find_config_edits(folder, config)[0]
