"""Comparing the first losses of two runs to the bit, and their manifests."""

import json
from pathlib import Path
from typing import Any

from detector.engine.observers.manifest import read_manifest
from detector.errors import UserError, read_regular_file

Losses = dict[str, float]
COMPARED = ("weights", "versions", "git", "hardware", "kernels", "data")  # keys of a session
OTHER_KEYS = ("event", "time", "epoch", "batch")


def read_first_losses(events: Path) -> dict[tuple[int, int], Losses]:
    """Reads the unrounded losses of a run's first batches: (epoch, batch) -> loss by name.

    Raises:
        UserError: the file is missing or records none.
    """
    batches: dict[tuple[int, int], Losses] = {}
    for line in read_regular_file(events).splitlines() if events.exists() else []:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # incomplete, since the run was killed
        if isinstance(event, dict) and event.get("event") == "first losses":
            losses = {name: value for name, value in event.items() if name not in OTHER_KEYS}
            batches.setdefault((event["epoch"], event["batch"]), losses)
    if not batches:
        raise UserError(
            f"{events}: no recorded losses; expected the events.jsonl of a training run"
        )
    return dict(sorted(batches.items()))


def compare_losses(
    one: dict[tuple[int, int], Losses], other: dict[tuple[int, int], Losses], limit: int
) -> tuple[int, str | None]:
    """Compares the losses of the first `limit` batches that both runs have.

    Returns:
        The number of compared batches, and the first difference with both values; None if all bits are
        equal.

    Raises:
        UserError: no batch is in both.
    """
    common = [place for place in one if place in other][:limit]
    if not common:
        raise UserError("the two runs have no recorded batch in common")
    for number, place in enumerate(common, 1):
        before, now = one[place], other[place]
        for name in {**before, **now}:
            a, b = before.get(name), now.get(name)
            if repr(a) != repr(b):  # as text, so that nan equals nan
                epoch, batch = place
                text = f"batch {number} (epoch {epoch}, batch {batch + 1}): {name} {a!r}, now {b!r}"
                return number, text
    return len(common), None


def compare_manifests(one: Path, other: Path) -> list[str]:
    """The differences between the first sessions of two manifests, one per line."""
    sessions = [read_manifest(path).get("sessions") for path in (one, other)]
    if not all(sessions):
        missing = next(p for p, s in zip((one, other), sessions, strict=True) if not s)
        return [f"{missing}: missing or unreadable"]
    before, now = (_flatten({key: s[0].get(key) for key in COMPARED}) for s in sessions)  # pyright: ignore
    return [
        f"{name}: {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Flattens nested dicts into one with dotted keys."""
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{name}.{key}" if name else str(key))
    return flat
