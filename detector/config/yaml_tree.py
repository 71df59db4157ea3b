# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# PyYAML's stubs type only part of its loader.
"""YAML text -> a tree of plain values, with the file and line of each.

Stricter than YAML 1.1: no duplicate keys and no aliases; only `true` and `false` are booleans (the class
name `no` stays a word), and `1e-3` is a number.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detector.errors import UserError

Key = tuple[str | int, ...]  # ("train", "lr"); numbers are positions in a list
NAMES = {"name", "preset"}  # a mapping with one of these keys replaces a mapping, without merging


@dataclass(slots=True)
class Tree:
    """A mapping as read from one or more sources.

    Attributes:
        values: nested dicts and tuples of scalars.
        origins: where the value at each key came from, "run.yaml:12" or "command line".
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[Key, str] = field(default_factory=dict[Key, str])

    def origin(self, key: Key) -> str:
        """Where `key` was set, or else the nearest enclosing section."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return "defaults"

    def put(self, key: Key, value: Any, origins: dict[Key, str]) -> None:
        """Sets one value, replacing what was there; `origins` is relative to `key`."""
        section = self.values
        for name in key[:-1]:
            if not isinstance(section.get(str(name)), dict):
                section[str(name)] = dict[str, Any]()
            section = section[str(name)]
        section[str(key[-1])] = value
        for old in [k for k in self.origins if k[: len(key)] == key]:
            del self.origins[old]
        self.origins |= {(*key, *inner): origin for inner, origin in origins.items()}

    def merge(self, other: "Tree", at: Key = ()) -> None:
        """Merges `other` into this tree, section by section; its values win.

        Mappings are merged key by key, unless the one of `other` has one of `NAMES` as a key: a named
        activation or bag replaces the previous one with all its parameters.
        """
        over = _at(other.values, at)
        under = _at(self.values, at)
        for name, value in over.items():
            key = (*at, name)
            below = under.get(name)
            if isinstance(value, dict) and isinstance(below, dict) and not NAMES & value.keys():
                self.origins[key] = other.origin(key)
                self.merge(other, key)
            else:
                inner = {k[len(key) :]: o for k, o in other.origins.items() if k[: len(key)] == key}
                self.put(key, value, inner)


def _at(values: dict[str, Any], key: Key) -> dict[str, Any]:
    for name in key:
        values = values[str(name)]
    return values


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own attribute

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not supported", problem_mark=mark
            )
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tfTF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    _first_letters = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first_letters
    )


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: unreadable, not YAML, a duplicate key, or not a mapping; with file and line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Tree:
    """`read_yaml` for text; `source` names it in messages."""
    node = _compose(text, source)
    if node is None:
        return Tree({}, {(): source})
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{source}:{_line(node)}: expected `key: value` lines")
    tree = Tree()
    tree.values = _build(node, (), source, tree.origins)
    return tree


def parse_value(text: str, source: str) -> Any:
    """One value as it would stand in a YAML file: `0.1`, `true`, `[1, 2]`, `mish`."""
    node = _compose(text, source)
    return None if node is None else _build(node, (), source, {})


def _compose(text: str, source: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def _build(node: yaml.Node, key: Key, source: str, origins: dict[Key, str]) -> Any:
    """The node's value; adds to `origins`."""
    origins[key] = f"{source}:{_line(node)}"
    if isinstance(node, yaml.SequenceNode):
        return tuple(_build(v, (*key, i), source, origins) for i, v in enumerate(node.value))
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node, source)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{source}:{_line(key_node)}: a key must be a word")
        name = str(key_node.value)
        if name in values:
            dotted = ".".join(map(str, (*key, name)))
            raise UserError(
                f"{source}:{_line(key_node)}: duplicate key {dotted} (first on line {lines[name]})"
            )
        lines[name] = _line(key_node)
        values[name] = _build(value_node, (*key, name), source, origins)
        origins[(*key, name)] = f"{source}:{_line(key_node)}"
    return values


def _scalar(node: yaml.Node, source: str) -> Any:
    word = str(node.value)
    match node.tag.rsplit(":", 1)[-1]:
        case "bool":
            return word.lower() == "true"
        case "int":
            return int(word)
        case "float":
            special = word[-3:].lower() in ("inf", "nan")
            return float(word.replace(".", "") if special else word)
        case "null":
            return None
        case "str":
            return word
        case _:
            raise UserError(f"{source}:{_line(node)}: tag {node.tag} is not supported")


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
