"""YAML files and command-line words -> a validated, frozen `Config`, and back.

Every mistake of a file is reported at once, one line each: file, line, dotted key, what is wrong,
and the nearest key there is.
"""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from detector.config.bags import BAGS
from detector.config.descriptions import find_file, is_description, is_file
from detector.config.schema import RECIPE_KEYS, Config
from detector.config.written_paths import find_written
from detector.config.yaml_tree import AsWritten, Key, Tree, parse_value, read_yaml
from detector.errors import UserError
from detector.registry import nearest

COMMAND_LINE = "command line"

M = TypeVar("M", bound=BaseModel)


def load_config(name: str, overrides: Sequence[str] = (), *, data: str | None = None) -> Config:
    """The configuration of a run.

    Args:
        name: path of a YAML, or its name in `configs/`.
        overrides: words `dotted.key=value`, values as in YAML; a later one wins.
        data: a data YAML in place of the config's own.

    Raises:
        UserError: all mistakes, one line each.

    Example:
        >>> load_config("yolov4-pacsp-mish.yaml", ["train.epochs=100"]).train.epochs
        100
    """
    tree = _read_with_parents(find_file(name, "configs"), ())
    _apply_overrides(tree, overrides, data)
    return _validate(Config, tree)


def load_yaml_as(model: type[M], path: Path) -> M:
    """A YAML file as an instance of a pydantic model.

    Raises:
        UserError: all mistakes, one line each.
    """
    return _validate(model, read_yaml(path))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain dicts, lists and scalars: what YAML and checkpoints can hold."""
    return config.model_dump(mode="json")


def config_from_dict(
    values: dict[str, Any], origin: str, overrides: Sequence[str] = (), *, data: str | None = None
) -> Config:
    """The inverse of `config_to_dict`.

    Args:
        values: plain dicts, lists and scalars.
        origin: the source that messages name, such as a checkpoint's path.
        overrides, data: as in `load_config`.

    Raises:
        UserError: all mistakes, one line each.
    """
    tree = Tree(_lists_to_tuples(values), {(): origin})
    _apply_overrides(tree, overrides, data)
    return _validate(Config, tree)


def replace_values(config: M, changes: Mapping[str, Any]) -> M:
    """A copy of a config, or of a section of one, with other values; validated as if read from a file.

    The only way to change a config value: pydantic's own `model_copy` validates nothing. Keys that are
    not set stay so (`model_fields_set`): the recipe may still choose their values.

    Args:
        config: a whole config, or a section.
        changes: values, or whole sections, by dotted key; relative to `config`.

    Raises:
        UserError: an unknown key, or a value that the schema refuses.

    Example:
        >>> replace_values(Config(), {"train.batch_size": 8}).train.batch_size
        8
    """
    tree = Tree(config.model_dump(exclude_unset=True), {(): "config"})
    for key, value in changes.items():
        if isinstance(value, BaseModel):
            plain = value.model_dump(exclude_unset=True)
        else:
            plain = _lists_to_tuples(value)
        tree.put(tuple(key.split(".")), plain, {(): "config"})
    return _validate(type(config), tree)


def dump_config(config: Config) -> str:
    """YAML text with every key; loading it gives an equal config."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, default_flow_style=None)


def changed_keys(before: Config, now: Config) -> list[str]:
    """The keys that differ, each as `train.lr: 0.1, now 0.2`.

    What `now` leaves to the run does not count, since the run has resolved it: None, "auto", and keys of
    the recipe that it does not set.
    """
    old, new = _flatten(config_to_dict(before)), _flatten(config_to_dict(now))
    if now.recipe == "auto":
        del new["recipe"]
    for key in RECIPE_KEYS if now.recipe == "auto" else ():
        section, name = key.split(".")
        if name not in getattr(now, section).model_fields_set:
            del new[key]
    return [
        f"{key}: {reprlib.repr(old[key])}, now {reprlib.repr(value)}"
        for key, value in new.items()
        if value not in (None, "auto") and value != old[key]
    ]


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted key, those of sections and of the config itself."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            section = cast(dict[str, Any], value)
            flat |= {f"{name}.{key}": inner for key, inner in section.items()}
        else:
            flat[name] = value
    return flat


def _apply_overrides(tree: Tree, words: Sequence[str], data: str | None) -> None:
    """Sets the values of words from the command line."""
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{COMMAND_LINE}: expected key=value (train.epochs=100), got {word!r}")
        value, spelled = parse_value(text, f"{COMMAND_LINE}: {key}")
        parts = tuple(key.split("."))
        if parts in (("bag",), ("bag", "preset")):
            layer = Tree()
            layer.put(("bag",), value, {(): COMMAND_LINE})
            _expand_bag(layer)
            tree.merge(layer)
        else:
            tree.put(parts, value, {(): COMMAND_LINE}, spelled)
    if data is not None:
        found = find_file(data, "data")
        name = found.name if is_description(found, "data") else str(found.resolve())
        tree.put(("data", "dataset"), name, {(): COMMAND_LINE})


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> Tree:
    """A file merged over the parent that its `extends:` names."""
    path = path.resolve()
    if path in children:
        names = " -> ".join(p.name for p in (*children, path))
        raise UserError(f"{path}: extends itself: {names}")
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    tree = read_yaml(shown)
    _resolve_dataset(tree, path.parent)
    _expand_bag(tree)
    if "extends" not in tree.values:
        return tree
    origin = tree.origins.pop(("extends",))
    parent = tree.values.pop("extends")
    if not isinstance(parent, str):
        raise UserError(f"{origin}: extends: expected one file name, not {parent!r}")
    beside = path.parent / find_written(parent, lambda name: is_file(path.parent / name))
    try:
        found = beside if is_file(beside) else find_file(parent, "configs")
    except UserError as error:
        raise UserError(f"{origin}: extends: {error}") from None
    base = _read_with_parents(found, (*children, path))
    base.merge(tree)
    return base


def _resolve_dataset(tree: Tree, folder: Path) -> None:
    """Makes `data.dataset` a full path if it names a file beside the config."""
    section: Any = tree.values.get("data")
    key = ("data", "dataset")
    name: Any = section.get("dataset") if isinstance(section, dict) else None  # pyright: ignore
    name = tree.spell(key, name)
    if not isinstance(name, str):
        return
    beside = folder / find_written(name, lambda written: is_file(folder / written))
    if is_file(beside):
        tree.put(key, str(beside.resolve()), {(): tree.origin(key)})


def _expand_bag(tree: Tree) -> None:
    """Replaces a bag's name by its keys; keys that the same source sets explicitly win."""
    bag: Any = tree.values.get("bag")
    origin = tree.origin(("bag",))
    if isinstance(bag, str):
        bag = {"preset": bag}
        tree.put(("bag",), bag, {(): origin})
    name: object = bag.get("preset") if isinstance(bag, dict) else ""  # pyright: ignore
    for section, keys in BAGS.get(name if isinstance(name, str) else "", {}).items():
        own: Any = tree.values.get(section, {})
        if not isinstance(own, dict):
            continue
        for key in keys.keys() - own.keys():  # pyright: ignore
            tree.put((section, key), keys[key], {(): origin})


def _drop_auto_values(tree: Tree) -> None:
    """`auto` for a key of the recipe takes back what a parent sets: the run decides again."""
    for section, name in (key.split(".") for key in RECIPE_KEYS if key != "train.batch_size"):
        values: Any = tree.values.get(section)
        if isinstance(values, dict) and values.get(name) == "auto":  # pyright: ignore
            del values[name]


def _validate(model: type[M], tree: Tree) -> M:
    if model is Config:
        _drop_auto_values(tree)
    _restore_text(model, tree)
    try:
        return model.model_validate(tree.values)
    except ValidationError as error:
        lines = [
            _explain(model, tree, dict(mistake))
            for mistake in error.errors()
            if mistake["type"] != "too_short"
            or not mistake["input"]  # else: of its invalid entries
        ]
        raise UserError("\n".join(lines)) from None


def _restore_text(model: type[BaseModel], tree: Tree, prefix: tuple[str, ...] = ()) -> None:
    """Gives the fields that are `AsWritten` the words of the file in place of numbers and booleans."""
    section: Any = tree.values
    for name in prefix:
        section = section.get(name) if isinstance(section, dict) else None  # pyright: ignore
    if not isinstance(section, dict):
        return
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            _restore_text(inner, tree, (*prefix, name))
        elif AsWritten() in info.metadata and section.get(name) is not None:  # pyright: ignore
            section[name] = tree.spell((*prefix, name), section[name])


def _explain(model: type[BaseModel], tree: Tree, mistake: dict[str, Any]) -> str:
    """One mistake as `file:line: key: what is wrong; did you mean ...?`."""
    parts: Key = mistake["loc"]
    unknown = mistake["type"] == "extra_forbidden"  # then the last part is the user's own word
    key: Key = tuple(part for part in parts[:-1] if not str(part).startswith("<"))
    key += tuple(part for part in parts[-1:] if unknown or not str(part).startswith("<"))
    dotted = ".".join(map(str, key))
    where = f"{tree.origin(key)}: {dotted}" if dotted else tree.origin(key)
    kind = str(mistake["type"])
    if unknown:
        return f"{tree.origin(key)}: unknown key {dotted}{_nearest_key(model, key)}"
    if kind == "missing":
        return f"{where}: this key is missing"
    if kind == "value_error":
        return f"{where}: {str(mistake['msg']).removeprefix('Value error, ')}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: expected a section with keys, not {_show(mistake['input'])}"
    if kind == "tuple_type":
        return f"{where}: expected a list ([a, b]), not {_show(mistake['input'])}"
    if kind == "too_short":
        return f"{where}: the list is empty; give at least one entry, or leave the key out"
    message = str(mistake["msg"]).removeprefix("Input ")
    return f"{where}: {message}, not {_show(mistake['input'])}"


def _show(value: Any) -> str:
    """A value as YAML has it, shortened: lists in square brackets."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value[:6]))}{', ...' if len(value) > 6 else ''}]"  # pyright: ignore
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def _nearest_key(model: type[BaseModel], key: Key) -> str:
    """`; did you mean train.lr?`: the nearest key of the same section, else of any other."""
    known = list(_known_keys(model))
    word = str(key[-1])
    siblings = {k[-1]: k for k in known if k[:-1] == key[:-1]}
    anywhere = {k[-1]: k for k in known}
    for names in (siblings, {} if word in siblings else anywhere):
        hint = nearest(word, list(names))
        if hint:
            name = hint.removeprefix("; did you mean ").removesuffix("?")
            return f"; did you mean {'.'.join(names[name])}?"
    return f" (known here: {', '.join(siblings)})" if siblings else ""


def _known_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, info in model.model_fields.items():
        yield (*prefix, name)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _known_keys(inner, (*prefix, name))


def _lists_to_tuples(value: Any) -> Any:
    """Lists as tuples, all the way down: the strict schema accepts no list for a tuple."""
    if isinstance(value, dict):
        return {name: _lists_to_tuples(inner) for name, inner in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return tuple(_lists_to_tuples(inner) for inner in value)  # pyright: ignore
    return value
