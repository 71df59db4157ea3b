"""Running commands in the tests' own process, and reading what they print."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
SMALL = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]


def load_command(name: str) -> ModuleType:
    return importlib.import_module(f"detector.commands.{name}")


def table_of(text: str) -> list[str]:
    """The twelve lines of AP and AR."""
    return [line for line in text.splitlines() if line.startswith(("  AP", "  AR"))]


def load_setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, in the top level as the current folder; nothing is built."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("project_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
