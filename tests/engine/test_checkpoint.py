import os
import pickle
import random
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from detector.engine import (
    RunFolder,
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
)
from detector.errors import UserError


def content():
    return {"config": {"a": 1}, "names": ["x"], "weights": nn.Linear(2, 3).state_dict()}


def test_round_trip(tmp_path):
    saved = content()
    save_checkpoint(tmp_path / "best.pt", saved)
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert loaded["config"] == {"a": 1}
    assert torch.equal(loaded["weights"]["weight"], saved["weights"]["weight"])
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "best.pt", content())
    before = (tmp_path / "best.pt").read_bytes()

    def crash(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(UserError, match="cannot be written: disk full; the previous one is intact"):
        save_checkpoint(tmp_path / "best.pt", content())
    assert (tmp_path / "best.pt").read_bytes() == before


def test_the_previous_checkpoint_is_kept_and_used_if_the_last_is_damaged(tmp_path):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for number in range(3):
        save_checkpoint(last, {**content(), "number": number}, previous=previous)
    assert load_checkpoint(last)["number"] == 2
    assert load_checkpoint(previous)["number"] == 1
    assert load_newest(last, previous)[1:] == (last, "")

    whole = last.read_bytes()
    generator = random.Random(0)
    for cut in [0, 1, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(20))]:
        last.write_bytes(whole[:cut])
        state, path, line = load_newest(last, previous)
        assert path == previous
        assert state["number"] == 1
        assert line.count("\n") == 0
        assert "last.pt: " in line
        assert line.endswith("resuming from previous.pt, the checkpoint before it")
    last.unlink()
    assert load_newest(last, previous)[0]["number"] == 1
    previous.unlink()
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint"):
        load_newest(last, previous)


def test_a_flipped_bit_is_detected(tmp_path):
    path = tmp_path / "x.pt"
    save_checkpoint(path, {**content(), "big": torch.arange(1000.0)})
    whole = path.read_bytes()
    at = whole.index(torch.arange(1000.0).numpy().tobytes()[400:500])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"x\.pt: .*damaged"):
        load_checkpoint(path)


def test_a_full_disk_leaves_both_files(tmp_path):
    """Simulated by a limit on the size of files, in a separate process."""
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for number in range(2):
        save_checkpoint(last, {**content(), "number": number}, previous=previous)
    program = f"""
        import resource, torch
        from pathlib import Path
        from detector.engine import load_checkpoint, save_checkpoint

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        content = load_checkpoint(Path({str(last)!r}))
        save_checkpoint(Path({str(last)!r}), {{**content, "big": torch.zeros(100_000)}})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    message = done.stderr.splitlines()[-1]
    assert "last.pt: the checkpoint cannot be written: File too large; the previous one" in message
    assert load_checkpoint(last)["number"] == 1
    assert load_checkpoint(previous)["number"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_a_newer_format_is_refused(tmp_path):
    """That older ones are migrated, tests/weights/test_hostile_checkpoints.py shows."""
    path = tmp_path / "last.pt"
    torch.save({"format": "detector-99", **content()}, path)
    with pytest.raises(UserError, match="needs a newer version"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


@pytest.mark.parametrize(
    "kind", ["missing", "text", "empty", "truncated", "evil", "foreign", "old"]
)
def test_bad_files_end_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    save_checkpoint(path, content())
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "evil":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "old":
        torch.save({"format": "detector-0", **content()}, path)
    else:
        path.write_text("hello" * (kind == "text"))
    with pytest.raises(UserError, match=r"x\.pt: ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(2, 4), r"weight has shape \[4, 2\], expected \[3, 2\] \(2 differences\)"),
        (nn.Linear(2, 3, bias=False), "bias is missing"),
        (nn.BatchNorm1d(3), "differences"),
    ],
)
def test_weights_of_another_model(other, message):
    with pytest.raises(UserError, match=f"x: weights of another model: .*{message}"):
        load_weights(nn.Linear(2, 3), other.state_dict(), "x")


def test_a_run_folder_is_never_overwritten(tmp_path):
    first = RunFolder.create(tmp_path / "a" / "run")
    (first.path / "x").write_text("")
    second = RunFolder.create(tmp_path / "a" / "run")
    assert second.path.name == "run-2"
    assert RunFolder.create(tmp_path / "a" / "run").path.name == "run-2"  # still empty
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        RunFolder.create(tmp_path / "file" / "run")
