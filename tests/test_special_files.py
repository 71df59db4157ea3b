"""A FIFO, a device or a folder in place of a file that a user names is one line, and never waited for."""

import os
from pathlib import Path

import pytest

from detector.api.detector import _read_thresholds_file
from detector.api.frame_sources import open_sources
from detector.coco_json import load_json
from detector.config import load_config
from detector.data.readers.image_label_pairs import read_list
from detector.data.readers.voc import pair_voc
from detector.data.readers.yolo_txt import pair_yolo
from detector.engine import RunFolder, load_checkpoint
from detector.engine.observers.manifest import read_manifest
from detector.engine.reproduction import read_first_losses
from detector.errors import UserError, read_regular_file
from detector.models import read_header
from detector.study.collect import read_rows
from detector.weights.darknet import read_config

READERS = {
    "any": read_regular_file,
    "checkpoint": load_checkpoint,
    "weights": read_header,
    "x.cfg": lambda path: read_config(str(path)),
    "config": lambda path: load_config(str(path)),
    "json": load_json,
    "thresholds": _read_thresholds_file,
    "list": read_list,
    "yolo list": lambda path: pair_yolo(path.parent, [path.name], "train"),
    "voc list": lambda path: pair_voc(path.parent, [path.name], "train"),
    "x.mp4": lambda path: open_sources([str(path)]),
    "results.csv": read_rows,
    "events.jsonl": read_first_losses,
    ".parts": lambda path: RunFolder(path.parent).num_chunks,
}


def make_fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    os.mkfifo(path)


def link_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_fifo, link_device])
@pytest.mark.parametrize("name", READERS)
def test_a_device_or_a_pipe_is_named_and_not_waited_for(tmp_path, name, make):
    path = tmp_path / name
    make(path)
    with pytest.raises(UserError) as caught:
        READERS[name](path)
    assert str(caught.value) == f"{path}: cannot be read: it is a device or a pipe, not a file"


@pytest.mark.parametrize("name", [name for name in READERS if name[-4:] not in ("list", "nfig")])
def test_a_folder_is_no_file(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    with pytest.raises(UserError, match=r"(it is a folder, not a file|no images in this folder)"):
        READERS[name](path)


@pytest.mark.parametrize("content", ["", "-1", "0", "nan", "1" * 5000])
def test_a_damaged_number_of_chunks_is_named(tmp_path, content):
    (tmp_path / ".parts").write_text(content)
    with pytest.raises(UserError, match=r"\.parts: expected a number of chunks; delete this file"):
        _ = RunFolder(tmp_path).num_chunks


@pytest.mark.parametrize("content", ["[" * 100_000, "7", "\0", "null"])
def test_malformed_json_of_a_run_is_not_a_traceback(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    assert read_manifest(path) == {}
    with pytest.raises(UserError, match=r"x\.json: no recorded losses"):
        read_first_losses(path)
    with pytest.raises(UserError, match=r"x\.json: not a thresholds\.json"):
        _read_thresholds_file(path)
