# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# PyYAML's stubs type only part of its loader.
"""YAML text -> a tree of plain values, with the file and line of each.

Stricter than YAML 1.1: no duplicate keys and no aliases; only `true` and `false` are booleans (the class
name `no` stays a word), and `1e-3` is a number. Whatever a file holds, a mistake is a `UserError` with
its name: that of the parser, too.
"""

import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detector.errors import UserError, read_regular_file

Key = tuple[str | int, ...]  # ("train", "lr"); numbers are positions in a list
NAMES = {"name", "preset"}  # a mapping with one of these keys replaces a mapping, without merging

LARGEST_FILE = 2_000_000  # bytes; PyYAML parses 100 kB per second
LARGEST_DEPTH = 50  # of nested lists and sections
LARGEST_NUMBER = 100  # characters
# what PyYAML raises for some malformed text besides its own errors ("\UFFFFFFFF", say)
PARSER_FAULTS = (ValueError, OverflowError, IndexError, AttributeError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class AsWritten:
    """Marks a field of a schema that holds text: `02146`, `1.10` and `true` are then not converted."""


@dataclass(slots=True)
class Tree:
    """A mapping as read from one or more sources.

    Attributes:
        values: nested dicts and tuples of scalars.
        origins: where the value at each key came from, "run.yaml:12" or "command line".
        words: numbers, booleans and nulls as they were written, for text fields (`AsWritten`).
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[Key, str] = field(default_factory=dict[Key, str])
    words: dict[Key, str] = field(default_factory=dict[Key, str])

    def origin(self, key: Key) -> str:
        """Where `key` was set, or else the nearest enclosing section."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return "defaults"

    def put(
        self, key: Key, value: Any, origins: dict[Key, str], words: dict[Key, str] | None = None
    ) -> None:
        """Sets one value, replacing what was there; `origins` and `words` are relative to `key`."""
        section = self.values
        for name in key[:-1]:
            if not isinstance(section.get(str(name)), dict):
                section[str(name)] = dict[str, Any]()
            section = section[str(name)]
        section[str(key[-1])] = value
        for table, new in ((self.origins, origins), (self.words, words or {})):
            for old in [k for k in table if k[: len(key)] == key]:
                del table[old]
            table |= {(*key, *inner): text for inner, text in new.items()}

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
                self.put(key, value, _below(other.origins, key), _below(other.words, key))

    def spell(self, key: Key, value: Any) -> Any:
        """The value at `key` with its numbers, booleans and nulls as they were written."""
        if isinstance(value, tuple):
            return tuple(self.spell((*key, i), each) for i, each in enumerate(value))
        if isinstance(value, dict):
            return {name: self.spell((*key, name), each) for name, each in value.items()}
        return self.words.get(key, value)


def _below(table: dict[Key, str], key: Key) -> dict[Key, str]:
    """The entries at `key` and below, relative to it."""
    return {k[len(key) :]: text for k, text in table.items() if k[: len(key)] == key}


def _at(values: dict[str, Any], key: Key) -> dict[str, Any]:
    for name in key:
        values = values[str(name)]
    return values


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own attribute
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        problem = None
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not supported"
        elif self.depth >= LARGEST_DEPTH:
            problem = f"lists and sections are nested more than {LARGEST_DEPTH} deep"
        if problem is not None:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_PATTERNS: dict[str, list[re.Pattern[str]]] = {}  # how a value of each tag is written
for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tfTF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    _first_letters = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
    _compiled = re.compile(rf"^(?:{_pattern})\Z")
    _PATTERNS.setdefault(_tag, []).append(_compiled)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _compiled, _first_letters)


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: unreadable, not YAML, a duplicate key, or not a mapping; with file and line.
    """
    try:
        text = read_regular_file(path, largest=LARGEST_FILE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
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
    tree.values = _build(node, (), source, tree)
    return tree


def parse_value(text: str, source: str) -> tuple[Any, dict[Key, str]]:
    """One value as it would stand in a YAML file (`0.1`, `true`, `[1, 2]`, `mish`), and its `words`."""
    node, tree = _compose(text, source), Tree()
    return (None if node is None else _build(node, (), source, tree)), tree.words


def _compose(text: str, source: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except PARSER_FAULTS as error:
        raise UserError(f"{source}: not YAML: {type(error).__name__}: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _build(node: yaml.Node, key: Key, source: str, tree: Tree) -> Any:
    """The node's value; adds to the origins and words of `tree`."""
    tree.origins[key] = f"{source}:{_line(node)}"
    if not isinstance(node, yaml.SequenceNode | yaml.MappingNode):
        value = _parse_scalar(node, source)
        if not isinstance(value, str) and node.value:
            tree.words[key] = str(node.value)
        return value
    kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise UserError(f"{source}:{_line(node)}: tag {node.tag} is not supported")
    if isinstance(node, yaml.SequenceNode):
        return tuple(_build(v, (*key, i), source, tree) for i, v in enumerate(node.value))
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{source}:{_line(key_node)}: a key must be a word")
        _parse_scalar(key_node, source)
        name = str(key_node.value)
        if name in values:
            dotted = ".".join(map(str, (*key, name)))
            raise UserError(
                f"{source}:{_line(key_node)}: duplicate key {dotted} (first on line {lines[name]})"
            )
        lines[name] = _line(key_node)
        values[name] = _build(value_node, (*key, name), source, tree)
        tree.origins[(*key, name)] = f"{source}:{_line(key_node)}"
    return values


def _parse_scalar(node: yaml.Node, source: str) -> Any:
    word, where = str(node.value), f"{source}:{_line(node)}"
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag not in ("str", *_PATTERNS):
        raise UserError(f"{where}: tag {node.tag} is not supported")
    if tag != "str" and not any(pattern.match(word) for pattern in _PATTERNS[tag]):
        raise UserError(f"{where}: {reprlib.repr(word)} is not a value of its tag !!{tag}")
    if tag in ("int", "float") and len(word) > LARGEST_NUMBER:
        raise UserError(
            f"{where}: a number of {len(word)} characters; at most {LARGEST_NUMBER} are read"
        )
    match tag:
        case "bool":
            return word.lower() == "true"
        case "int":
            return int(word)
        case "float":
            special = word[-3:].lower() in ("inf", "nan")
            return float(word.replace(".", "") if special else word)
        case "null":
            return None
        case _:
            _require_text(word, where)
            return word


def _require_text(word: str, where: str) -> None:
    """Refuses what no file, class or key can be named; escapes can write it (half a surrogate pair)."""
    try:
        word.encode(
            "utf-8", "surrogateescape"
        )  # file names that are not UTF-8 have such surrogates
    except UnicodeEncodeError:
        raise UserError(f"{where}: {reprlib.repr(word)} has half of a surrogate pair") from None
    if "\0" in word:
        raise UserError(f"{where}: {reprlib.repr(word)} has a NUL character")


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
