import os
import pickle

import pytest
import torch
from torch import nn

from detector.engine import RunFolder, load_checkpoint, load_weights, save_checkpoint
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
    with pytest.raises(UserError, match="cannot be written: disk full; the one before it is whole"):
        save_checkpoint(tmp_path / "best.pt", content())
    assert (tmp_path / "best.pt").read_bytes() == before


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
        (nn.Linear(2, 4), r"weight is \[4, 2\], not \[3, 2\] \(2 differences\)"),
        (nn.Linear(2, 3, bias=False), "it lacks bias"),
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
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.create(tmp_path / "file" / "run")
