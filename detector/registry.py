"""One generic registry: a name in a YAML file on one side, a function on the other."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from detector.errors import UserError

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """A hint `; did you mean X?` for a misspelt name, or the empty string where nothing is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class Registry(Generic[T]):
    """Named entries of one kind.

    Example:
        >>> ACTIVATIONS = Registry[Callable[[], nn.Module]]("activation")
        >>> @ACTIVATIONS.register("relu")
        ... def relu() -> nn.Module:
        ...     return nn.ReLU(inplace=True)
        >>> ACTIVATIONS["relu"]()
        ReLU(inplace=True)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """A decorator that registers its function under `names`, each of which must be new."""

        def add(entry: T) -> T:
            for name in names:
                assert name not in self._entries, f"{self.kind} {name} is registered twice"
                self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            UserError: no such entry; the message lists the known names and the nearest one.
        """
        if name not in self._entries:
            known = sorted(self._entries)
            raise UserError(
                f"unknown {self.kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})"
            )
        return self._entries[name]

    def bind(self, name: str, parameters: dict[str, Any], *, given: tuple[str, ...] = ()) -> Any:
        """The entry called `name`, a function, with the parameters that a YAML file sets.

        Args:
            name: of the entry.
            parameters: by keyword.
            given: parameters that the entry's caller passes, which a YAML file must not set.

        Raises:
            UserError: no such entry, or a parameter that it does not have.
        """
        entry: Any = self[name]
        known = [key for key in inspect.signature(entry).parameters if key not in given]
        for key in parameters:
            if key not in known:
                has = f"has {', '.join(known)}" if known else "has none"
                raise UserError(
                    f"{self.kind} {name}: no parameter {key!r}{nearest(key, known)} ({has})"
                )
        return functools.partial(entry, **parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
