"""The shape of the package: imports point one way, one part reads the config, files are short.

CONTRIBUTING.md has the picture.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from pydantic import BaseModel

import detector
from detector.config import Config
from detector.config.schema import Section
from detector.registry import Registry

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"errors", "command_names"},
    {"registry", "structures"},
    {"ops"},
    {
        "nn",
        "anchors",
        "boxes",
        "coco_json",
        "decode",
        "postprocess",
        "config",
        "device",
        "distributed",
    },
    {"visualize"},
    {"models", "losses", "data", "engine", "evaluation"},
    {"build"},
    {"export"},
    {"weights"},
    {"api"},
    {"html_report", "serve"},
    {"study"},
    {"commands"},
    {"__main__"},
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
        assert imported(path) <= {"api", "errors"}  # names of the public API, imported on first use
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
    """A config is read by one part of the package: elsewhere its keys could be renamed only in part."""
    for path in FILES:
        if part_of(path) in {"models", "losses", "engine", "evaluation", "nn", "ops"}:
            assert "config" not in imported(path), f"{path} reads a config; pass it its parts"
        elif part_of(path) not in {"build", "config"}:
            built, keys = constructors(path), config_keys(path)
            assert not (built and keys), f"{path} reads {keys} and constructs {built}: see build/"


# classes that hold values (paths, labels, results) and take none of them from a config
VALUES = {"RunFolder", "Header", "GroundTruth", "Results", "ModelResult", "ValueGrid"}
SECTIONS = {
    name: set(type(section).model_fields)
    for name, section in Config()
    if isinstance(section, BaseModel)
}


def objects_of(tree: ast.AST) -> dict[str, object]:
    """What the names that a module imports from `detector` are, whatever it calls them."""
    objects: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("detector"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                objects[alias.asname or alias.name] = getattr(module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("detector"):
                    module = importlib.import_module(alias.name)
                    objects[alias.asname or "detector"] = module if alias.asname else detector
    return objects


def resolve(node: ast.AST, objects: dict[str, object]) -> object:
    if isinstance(node, ast.Name):
        return objects.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(resolve(node.value, objects), node.attr, None)
    return None


def constructors(path: Path) -> set[str]:
    """Classes of `CONSTRUCTED` that a module calls, by itself, by a class method
    or as the argument of a call such as `partial`; and registries that it looks names up in.
    """
    tree = ast.parse(path.read_text())
    objects, built = objects_of(tree), set()
    for node in ast.walk(tree):
        used = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") != "isinstance":
            used = [node.func, getattr(node.func, "value", None), *node.args]
        elif isinstance(node, ast.Subscript):
            used = [node.value]
        for thing in (resolve(each, objects) for each in used if each is not None):
            home = (getattr(thing, "__module__", None) or "").split(".")[1:2]
            if isinstance(thing, Registry):
                built.add("a registry")
            elif inspect.isclass(thing) and home and home[0] in CONSTRUCTED:
                built.add(thing.__name__)
                if thing.__name__ in VALUES or issubclass(thing, BaseException):
                    built.discard(thing.__name__)
    return built


CONSTRUCTED = {"models", "losses", "engine", "evaluation", "nn", "device", "decode", "postprocess"}


def config_keys(path: Path) -> set[str]:
    """Keys that a module reads (`train.lr`), and sections of the schema that it names."""
    tree = ast.parse(path.read_text())
    objects, keys = objects_of(tree), set()
    for node in ast.walk(tree):
        section = getattr(getattr(node, "value", None), "attr", "")
        if isinstance(node, ast.Attribute) and node.attr in SECTIONS.get(section, ()):
            keys.add(f"{section}.{node.attr}")
        named = objects.get(node.id) if isinstance(node, ast.Name) else None
        if inspect.isclass(named) and issubclass(named, Section):
            keys.add(named.__name__)
    return keys


@pytest.mark.parametrize(
    "text",
    [
        "from detector.engine import ModelEMA as E\ndef f(c): return E(None, decay=c.train.lr)",
        "from detector import engine\ndef f(c): return engine.ModelEMA(None, decay=c.train.lr)",
        "import detector.engine\ndef f(c): return detector.engine.ModelEMA(None, c.train.lr)",
        "def f(c):\n from detector.engine import ModelEMA\n return ModelEMA(None, c.train.lr)",
        "from detector.engine import Hardware\ndef f(c): return Hardware.choose(c.train.device)",
        "from functools import partial\nfrom detector.losses import YOLOLoss\n"
        "def f(c): return partial(YOLOLoss, c.loss.box)",
        "from detector.engine import OPTIMIZERS\ndef f(c): return OPTIMIZERS[c.train.optimizer]",
        "from detector.config import TrainConfig\nfrom detector.engine import Schedule\n"
        "def f(t: TrainConfig): return Schedule(t.epochs)",
    ],
)
def test_the_guard_sees_through_aliases(text, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert constructors(path)
    assert config_keys(path)


def test_few_loose_files():
    """A file beside the packages belongs to none of them: the more, the harder a reader finds one."""
    loose = [path for path in FILES if path.parent == ROOT / "detector"]
    assert len([path for path in loose if not path.stem.startswith("__")]) <= 12


# nn.batch_norm is the module, ops.batch_norm the operator that it calls
SAME_NAME = {"batch_norm"}


def test_a_base_name_is_used_once():
    """`report.py` in three packages is looked for in all three. Commands are named as what they call."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        if path.stem not in {"__init__", "__main__", *SAME_NAME} and part_of(path) != "commands":
            homes.setdefault(path.stem, []).append(str(path.relative_to(ROOT)))
    assert [paths for paths in homes.values() if len(paths) > 1] == []


# files over 400 lines that are tables of constants
TABLES: set[str] = set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    """A function of one screen is read in one go; a file over 400 lines holds two nouns."""
    text = path.read_text()
    assert text.count("\n") <= 400 or path.name in TABLES, f"{path} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno}: {node.name} has {length} lines"
