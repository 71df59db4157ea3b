import json
import subprocess

import pytest

from detector.engine import Manifest, Stopped, read_manifest
from detector.engine.observers.manifest import collect_kernels, collect_versions, read_git_state
from detector.errors import UserError
from tests.engine.small_trainer import StopAtStep, make


def manifest(path):
    return Manifest(path, config={"a": 1}, data={"train": {"digest": "x"}})


def sessions(path):
    return json.loads(path.read_text())["sessions"]


def test_sessions_of_a_stopped_and_resumed_run(tmp_path):
    path, stop = tmp_path / "manifest.json", StopAtStep(2)
    with pytest.raises(Stopped):
        make(observers=[manifest(path), stop]).run()
    (first,) = sessions(path)
    assert first["outcome"] == "stopped: enough"
    assert first["from"] == {"epoch": 1, "batch": 0}

    resumed = make(observers=[manifest(path)], evaluate=lambda _: {"AP": 0.25, "AP50": 0.5})
    resumed.load_state_dict(stop.state)
    resumed.run()
    kept, second = sessions(path)
    assert kept == first
    assert second["outcome"] == "finished"
    assert second["from"] == {"epoch": 2, "batch": 0}
    assert second["epochs_done"] == 3
    assert second["weights"] != first["weights"]
    assert second["ended"] >= second["started"]
    assert second["best_ap"] == 0.25
    assert read_manifest(path)["config"] == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_the_same_run_starts_from_the_same_weights(tmp_path):
    for name in ("a.json", "b.json"):
        make(epochs=1, observers=[manifest(tmp_path / name)]).run()
    (a,), (b,) = sessions(tmp_path / "a.json"), sessions(tmp_path / "b.json")
    for key in ("weights", "versions", "git", "hardware", "kernels", "data"):
        assert a[key] == b[key]


def test_a_failed_run_says_why_and_a_killed_one_nothing(tmp_path):
    path = tmp_path / "manifest.json"

    def evaluate(_):
        assert sessions(path)[-1]["outcome"] is None  # what a kill here would leave
        raise ValueError("too\nbad")

    with pytest.raises(ValueError, match="too"):
        make(observers=[manifest(path)], evaluate=evaluate).run()
    assert sessions(path)[-1]["outcome"] == "failed: ValueError: too"


def test_a_damaged_manifest_ends_no_run(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"sessions": [{')
    make(epochs=1, observers=[manifest(path)]).run()
    assert len(sessions(path)) == 1


def test_a_full_disk_at_the_end_hides_no_other_error(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def evaluate(_):
        (folder / "manifest.json").unlink()
        folder.rmdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(observers=[manifest(folder / "manifest.json")], evaluate=evaluate).run()
    with pytest.raises(UserError, match=r"manifest\.json: cannot be written"):
        make(observers=[manifest(folder / "manifest.json")]).run()


def test_git_state(tmp_path, monkeypatch):
    assert read_git_state(tmp_path) is None
    for key in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{key}_NAME", "a")
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "a@b")

    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    (tmp_path / "untracked").write_text("1")
    state = read_git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert read_git_state(tmp_path) == {**state, "dirty": True}


def test_versions_and_kernels_are_collected():
    assert {"python", "torch", "torchvision", "numpy", "opencv"} <= collect_versions().keys()
    assert collect_kernels()["mish"]["cpu float32"] in ("compiled", "torch")
