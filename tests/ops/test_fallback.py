"""Without the library: the same values, and one warning or, if switched off, none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detector import ops
from detector.ops import __main__ as command
from detector.ops import _load

VALUES = """
import torch
from detector import ops

def values():
    x = torch.linspace(-30, 30, 1001, requires_grad=True)
    y = ops.mish(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    maps = torch.linspace(-2, 2, 24).reshape(2, 3, 2, 2).requires_grad_()
    normed = ops.batch_norm_act(maps, torch.ones(3), torch.zeros(3), torch.zeros(3), torch.ones(3))
    (grad,) = torch.autograd.grad((normed * maps.detach()).sum(), maps)
    in_place = ops.mish_(maps.detach().clone())
    return [t.flatten().tolist() for t in (y, slope, normed, grad, in_place)]
"""

REPORT = """
import json, sys, warnings
from pathlib import Path
from detector.ops import _load

_load.FOLDER = Path(sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = values(), values()
print(json.dumps({
    "warnings": [[w.category.__name__, str(w.message)] for w in caught],
    "values": results[0],
    "reason": _load.status().reason,
}))
"""


def report(folder: Path, **environment: str) -> dict:
    """What a new process computes and prints with the libraries of this folder."""
    done = subprocess.run(
        [sys.executable, "-c", VALUES + REPORT, str(folder)],
        env={**os.environ, "DETECTOR_NATIVE": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def assert_same_values_here(got: list[list[float]]) -> None:
    scope: dict = {}
    exec(VALUES, scope)
    for ours, expected in zip(got, scope["values"](), strict=True):
        assert ours == pytest.approx(expected, rel=2e-6, abs=2e-6)


def test_switched_off_silently():
    native = report(_load.FOLDER, DETECTOR_NATIVE="1")
    assert native["warnings"] == []
    assert native["reason"] == "switched off by DETECTOR_NATIVE=1"
    assert_same_values_here(native["values"])


def test_a_missing_library_is_reported_once(tmp_path):
    (tmp_path / "_C_cpu_build_error.txt").write_text("no C++ compiler: g++ not found\n")
    missing = report(tmp_path)
    ((category, message),) = missing["warnings"]
    assert category == "RuntimeWarning"
    assert "no C++ compiler: g++ not found" in message
    assert "--no-build-isolation" in message
    assert_same_values_here(missing["values"])


@pytest.mark.usefixtures("undecided")
def test_a_broken_library_is_reported_at_the_callers_line(monkeypatch, tmp_path):
    (tmp_path / "_C_cpu.so").write_text("not a library")
    monkeypatch.setattr(_load, "FOLDER", tmp_path)
    monkeypatch.delenv("DETECTOR_NATIVE", raising=False)
    with pytest.warns(RuntimeWarning, match="_C_cpu.so") as caught:
        y = ops.mish(torch.ones(1))
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    assert y.item() == pytest.approx(0.86509839)


@pytest.mark.usefixtures("compiled", "undecided")
def test_wrong_values_are_detected(monkeypatch):
    monkeypatch.setattr(_load, "_load", lambda device: None)  # loaded before; its fakes exist once
    monkeypatch.setattr(torch.ops.detector_ops, "mish_forward", lambda x: x.relu())
    with pytest.warns(RuntimeWarning, match="self-test failed"):
        y = ops.mish(torch.ones(1))
    assert y.item() == pytest.approx(0.86509839)


def test_table_is_printed(capsys):
    command.main()
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert header == ["op", "device", "dtype", "implementation", "reason"]
    assert rows[3][:3] == ["mish", "cpu", "float16"]
    assert ["batch_norm_act", "cpu", "float64", "torch"] in [row[:4] for row in rows]
    assert all(row[3] in ("compiled", "torch") for row in rows)


@pytest.mark.usefixtures("compiled", "undecided")
def test_default_device_does_not_mislead_the_self_test():
    with torch.device("meta"):
        assert _load.status("cpu").usable


@pytest.mark.usefixtures("compiled")
def test_cuda_library_loads_where_there_is_no_gpu():
    """It needs nothing but torch: the CUDA runtime is inside."""
    if not _load.library_path("cuda").exists() or torch.version.cuda is None:
        pytest.skip("no CUDA library was built here")
    torch.ops.load_library(_load.library_path("cuda"))
    assert torch._C._dispatch_has_kernel_for_dispatch_key("detector_ops::mish_forward", "CUDA")
