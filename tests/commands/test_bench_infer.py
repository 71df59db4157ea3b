"""tools/bench_infer.py: its table and file, other projects' ONNX files, users' mistakes."""

import json
from pathlib import Path

import pytest
import torch

from detector.api import inference_benchmark
from detector.api.inference_benchmark import Timing, find_obstacle, format_timings, make_other
from detector.device import Hardware
from detector.errors import UserError
from detector.export import ExportOptions, write_exported
from tests.export.small_network import CFG, SIZE, describe, make_model

pytest.importorskip("onnxruntime")
CPU = Hardware(torch.device("cpu"), "fp32", torch.contiguous_format)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An ONNX file for batches of 2."""
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    write_exported(make_model(), path, describe(shape=(2, SIZE, SIZE)), ExportOptions("onnx"))
    return path


def test_table_and_file(tool, other, digits_root, monkeypatch):
    """Every variant at every batch size that it takes, and a stage that costs nothing where none is."""
    Path("small.cfg").write_text(CFG)
    # the export has its own tests; this one takes the file that is there
    monkeypatch.setattr(
        inference_benchmark,
        "write_exported",
        lambda model, path, *_: path.write_bytes(other.read_bytes()),
    )
    names = ["eager", "fused", "channels_last", "onnxruntime"]
    words = ["--cfg", "small.cfg", "--variants", *names, "--vs", other, "--batch", "2", "1"]
    words += ["--images", digits_root / "val2017", "--rounds", "2", "--size", SIZE]
    status, out, err = tool("bench_infer", *words, "--threads", "1", "--json", "t.json")
    assert status == 0, err
    rows = [line.split() for line in out.splitlines()[3:]]
    assert [(row[0], row[1]) for row in rows] == [
        *((name, "1") for name in names),
        *((name, "2") for name in (*names, "other.onnx")),
    ]
    assert [row[-1] for row in rows if row[0] == "onnxruntime"] == ["1.00", "1.00"]
    content = json.loads(Path("t.json").read_text())
    assert len(content) == 9
    assert all(set(each["ms_per_image"]) == {"images", "network", "boxes"} for each in content)
    assert all(each["ms_per_image"]["network"] > 0 for each in content)


def test_medians_per_image():
    slow = Timing("eager", 8, {"images": [1, 2, 9], "network": [10, 30, 20], "boxes": [0, 1, 1]})
    fast = Timing("onnxruntime", 8, {"images": [1, 1], "network": [10, 10], "boxes": [1, 1]})
    assert (slow.median("images"), slow.total) == (2, 23)
    row = format_timings([slow, fast]).splitlines()[2].split()
    assert row == ["eager", "8", "2.00", "20.00", "1.00", "23.00", "13.0%", "2.00"]


def test_default_variants(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(inference_benchmark, "cpu_has_bf16", lambda: False)
    assert "no bf16" in find_obstacle("bf16", cpu)
    assert find_obstacle("bf16", torch.device("cuda")) is None
    assert find_obstacle("eager", cpu) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'detector[openvino]'" in find_obstacle("openvino", cpu)


def test_files_of_other_projects(other, tmp_path):
    variant = make_other(other, SIZE, CPU, (1, 8))
    assert variant.batches == (2,)
    with pytest.raises(UserError, match=r"expected one input \[batch, 3, 96, 96\]"):
        make_other(other, 96, CPU, (1,))
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot load it"):
        make_other(tmp_path / "a.onnx", SIZE, CPU, (1,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --weights, or --cfg for random ones"),
        (["--cfg", "small.cfg", "--batch", "0"], "--batch and --rounds: expected at least 1"),
        (["--cfg", "small.cfg", "--conf", "2"], "expected a score between 0 and 1"),
        (["--cfg", "csdarknet53-omega"], "is a classifier"),
        (["--cfg", "small.cfg", "--images", "a.jpg"], "a.jpg: not a decodable image"),
        (["--cfg", "small.cfg", "--vs", "none.onnx", "--variants", "eager"], "no such file"),
        (["--weights", "a.onnx"], "measures PyTorch weights; give a.onnx with --vs"),
    ],
)
def test_a_users_mistake_is_one_line(tool, words, message):
    Path("small.cfg").write_text(CFG)
    Path("a.jpg").write_bytes(b"no image")
    status, _, err = tool("bench_infer", *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
