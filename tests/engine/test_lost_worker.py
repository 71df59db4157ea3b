"""torch raises the loss of a data-loader worker wherever the training process happens to be."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from detector.data import EpochOrder, TrainLoader, sample_without_labels
from detector.engine import reading_checkpoint, save_checkpoint
from detector.errors import UserError, raise_lost_worker
from detector.structures import LoadedSample


class Blank:
    """A data set of blank samples."""

    order = EpochOrder(8, 0)

    def __getitem__(self, key):
        return LoadedSample(sample_without_labels(np.zeros((8, 8, 3), np.uint8)))


def save(tmp_path, crash, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", {"number": 1})
    monkeypatch.setattr(os, "fsync", crash)
    try:
        save_checkpoint(tmp_path / "last.pt", {"number": 2})
    finally:
        monkeypatch.undo()
        assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
        assert torch.load(tmp_path / "last.pt")["number"] == 1


def read(tmp_path, crash, monkeypatch):
    with reading_checkpoint("x.pt"):
        crash(0)


@pytest.mark.parametrize("work", [save, read])
def test_a_worker_killed_meanwhile_is_told_as_that(tmp_path, monkeypatch, work):
    loader = TrainLoader(Blank(), batch_size=2, workers=1)
    batches = loader.epoch(0)
    next(batches)
    worker = loader._loader._iterator._workers[0].pid

    def crash(handle):
        os.kill(worker, signal.SIGKILL)
        time.sleep(20)  # which torch's handler of the signal ends

    with pytest.raises(UserError, match=rf"^data-loader worker {worker} was killed \(signal: Kill"):
        work(tmp_path, crash, monkeypatch)
    loader.close()


def test_other_errors_pass():
    for error in (
        RuntimeError("disk full"),
        OSError(28, "DataLoader worker (pid 7)"),
        KeyError("x"),
    ):
        raise_lost_worker(error)
