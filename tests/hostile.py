"""Seeded damage to files and to their content, for the tests that no content ends in a traceback."""

import collections
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch


def damage_bytes(whole: bytes, draw: random.Random) -> bytes:
    """The bytes of a file with one fault: a flipped bit, changed bytes, a cut, or a repeated part."""
    at, kind = draw.randrange(len(whole)), draw.randrange(8)
    if kind < 4:
        return whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :]
    length = min(draw.randrange(1, 9), len(whole) - at)
    if kind < 6:
        return whole[:at] + draw.randbytes(length) + whole[at + length :]
    return whole[:at] if kind == 6 else whole[:at] + whole[max(at - length, 0) :]


def endless() -> list[Any]:
    """A list that contains itself."""
    items: list[Any] = []
    items.append(items)
    return items


def laughs() -> list[Any]:
    """A list of 10^12 values in twelve lists."""
    items: list[Any] = [0]
    for _ in range(12):
        items = [items] * 10
    return items


WRONG_VALUES: list[Callable[[], Any]] = [
    *(lambda value=value: value for value in (None, True, -1, 0, 7, 2**31, 10**30, 0.5, 1e308)),
    *(lambda value=value: value for value in (float("nan"), float("-inf"), "", "x", "\ud800", "7")),
    *(lambda value=value: value for value in ((), (1,), b"x", 1 + 2j, {1, 2}, torch.float32)),
    *(list, dict, lambda: [None], lambda: {"x": 1}, lambda: {None: 1}, lambda: {7: {}}),
    *(endless, laughs, lambda: collections.OrderedDict(a=1)),
    *(lambda: torch.zeros(0), lambda: torch.tensor(1.0), lambda: torch.ones(3, dtype=torch.int64)),
    lambda: torch.full((3, 4), float("nan")),
    lambda: torch.zeros(1).expand(10**12),  # 4 TB
    lambda: torch.zeros(10**12, device="meta"),
    lambda: torch.ones(2, dtype=torch.complex64).conj(),
    lambda: torch.eye(3).to_sparse(),
]


def list_places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested dicts and lists, themselves included."""
    yield path
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from list_places(item, (*path, key))


def replace_at(content: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy of nested containers in which `change(container, key)` was called at a path."""
    if isinstance(content, dict):
        copy: Any = dict(content)
    else:
        copy = list(content)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = replace_at(copy[path[0]], path[1:], change)
    return tuple(copy) if isinstance(content, tuple) else copy


def remove(container: Any, key: Any) -> None:
    """Removes an entry, for `replace_at`."""
    del container[key]


def damage_content(content: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A copy of a content in which one value is missing or another, and which it was.

    The depth of the place is drawn first: most places are deep down.
    """
    places = [path for path in list_places(content) if path]
    depth = draw.randint(1, max(map(len, places)))
    path = draw.choice([path for path in places if len(path) == depth])
    name = ".".join(map(str, path))
    if draw.random() < 0.2:
        return f"{name} removed", replace_at(content, path, remove)
    number = draw.randrange(len(WRONG_VALUES))
    value = WRONG_VALUES[number]()
    changed = replace_at(content, path, lambda container, key: container.__setitem__(key, value))
    return f"{name} = wrong value {number}", changed
