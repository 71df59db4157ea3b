"""Imports point one way: down. See CONTRIBUTING.md for the picture."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"errors"},
    {"registry", "structures"},
    {"ops"},
    {"nn", "anchors", "boxes", "decode", "postprocess", "config", "device", "distributed"},
    {"visualize"},
    {"models", "losses", "data", "engine", "evaluation"},
    {"build"},
    {"weights"},
    {"api"},
    {"html_report"},
    {"commands"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted((ROOT / "detector").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The parts of `detector` that a file imports: `nn`, `config` ..."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= set(full if node.module == "detector" else [node.module or ""])
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("detector.")}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "detector").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    part = part_of(path)
    if part == "__init__":
        assert not imported(path)
        return
    assert part in LEVEL, f"{part} has no level: say in this test where it stands"
    for other in imported(path) - {part}:
        assert LEVEL[other] < LEVEL[part], f"{part} imports {other}, which does not stand below it"


def test_nothing_imports_tools():
    for path in FILES:
        assert "tools" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }


def test_config_values_are_changed_by_replace_values_alone():
    """pydantic's `model_copy` and `model_construct` skip the validation."""
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        unchecked = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        } & {"model_copy", "model_construct"}
        assert not unchecked, f"{path}: {unchecked}; use detector.config.replace_values"


def test_only_build_brings_config_to_constructors():
    for path in FILES:
        if part_of(path) in {"models", "losses", "engine", "evaluation", "nn", "ops"}:
            assert "config" not in imported(path), f"{path} reads a config; pass it its parts"
