"""The ranges that a search draws settings from: a YAML file with a line for each dotted key."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from detector.config import Config, config_to_dict
from detector.config.yaml_tree import read_yaml
from detector.errors import UserError
from detector.registry import nearest

KEYS = ("low", "high", "log", "step", "choices")
Value = bool | int | float | str | None


class Drawing(Protocol):
    """What draws a value: a trial of Optuna."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number between two ends."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number between two ends."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of several values."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """The values of a key.

    Attributes:
        key: dotted, of a config.
        choices: the values; empty for a range of numbers.
        low, high: its ends, both included; whole numbers give whole numbers.
        log: drawn uniformly in the logarithm.
        step: between values; None: any.
    """

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        numbers = (self.low, self.high, self.step if self.step is not None else 1)
        return not self.choices and all(isinstance(number, int) for number in numbers)

    def draw(self, trial: Drawing) -> Value:
        """Draws a value."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.is_whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.key, low, high, step=step, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def list_ends(self) -> list[Value]:
        """The values that show whether a config takes the range."""
        return list(self.choices) or [self.low, self.high]

    def contains(self, value: Any) -> bool:
        """Whether a value could be drawn; of steps, about."""
        if self.choices:
            return any(value == each and type(value) is type(each) for each in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.step is not None:
            steps = (value - self.low) / self.step
            if abs(steps - round(steps)) > 1e-9:
                return False
        fits = float(value).is_integer() or not self.is_whole
        return self.low <= value <= self.high and fits


def read_space(path: Path) -> tuple[Range, ...]:
    """Reads the ranges of a search.

    Raises:
        UserError: unreadable, no ranges, or a range that is none.

    Example:
        `train.lr: {low: 0.001, high: 0.1, log: true}` and `bag.preset: {choices: [none, mosaic]}`
    """
    tree = read_yaml(path)
    if not tree.values:
        raise UserError(
            f"{path}: no ranges; expected `train.lr: {{low: 0.001, high: 0.1, log: true}}`"
        )
    return tuple(_read_range(key, value, tree.origin((key,))) for key, value in tree.values.items())


def _read_range(key: str, value: Any, where: str) -> Range:
    """One entry of the file; `where` is its file and line."""
    expected = (
        "expected {low: NUMBER, high: NUMBER}, with log: true or step: NUMBER, or {choices: [...]}"
    )
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key}: {expected}")
    unknown = [name for name in value if name not in KEYS]
    if unknown:
        hint = nearest(unknown[0], list(KEYS))
        raise UserError(f"{where}: {key}: unknown {unknown[0]!r}{hint}; {expected}")
    if "choices" in value:
        choices = value["choices"]
        plain = isinstance(choices, tuple) and all(
            each is None or isinstance(each, bool | int | float | str) for each in choices
        )
        if not plain or len(value) > 1 or len(set(map(repr, choices))) < max(len(choices), 2):
            raise UserError(f"{where}: {key}: choices has to be two or more different plain values")
        return Range(key, choices)
    low: Any = value.get("low")
    high: Any = value.get("high")
    step: Any = value.get("step")
    log = value.get("log", False)
    numbers = [low, high] if step is None else [low, high, step]
    if not all(_is_number(each) for each in numbers) or not isinstance(log, bool):
        raise UserError(f"{where}: {key}: {expected}")
    if low >= high or (step is not None and not 0 < step <= high - low):
        raise UserError(f"{where}: {key}: low has to be below high, and step fit between them")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}: {key}: log needs low > 0, and no step")
    return Range(key, (), low, high, log, step)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def format_words(values: Mapping[str, Value]) -> tuple[str, ...]:
    """The `key=value` words of drawn values; numbers with six digits."""
    rounded = {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in values.items()
    }
    return tuple(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in rounded.items()
    )


def find_defaults(space: Sequence[Range], config: Config) -> dict[str, Value] | None:
    """The values of a config, if all of them can be drawn; None if one is `auto`, say, or outside."""
    found: dict[str, Value] = {}
    whole = config_to_dict(config)
    for each in space:
        value: Any = whole
        for name in each.key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not each.contains(value):
            return None
        found[each.key] = int(value) if each.is_whole else value
    return found
