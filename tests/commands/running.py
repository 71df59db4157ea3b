"""Running commands in the tests' own process, and reading what they print."""

import importlib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
SMALL = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]


def load_command(name: str) -> ModuleType:
    return importlib.import_module(f"detector.commands.{name}")


def table_of(text: str) -> list[str]:
    """The twelve lines of AP and AR."""
    return [line for line in text.splitlines() if line.startswith(("  AP", "  AR"))]
