"""Is one run the beginning of another, to the bit? And if not, what was different."""

import json
from pathlib import Path
from typing import Any

from detector.engine.observers.manifest import read_manifest
from detector.errors import UserError

Losses = dict[str, float]
COMPARED = ("weights", "versions", "git", "hardware", "kernels", "data")  # of a session
BESIDES = ("event", "time", "epoch", "batch")


def read_first_losses(events: Path) -> dict[tuple[int, int], Losses]:
    """The losses of a run's first batches, exactly: (epoch, batch) -> loss by name.

    Raises:
        UserError: none were recorded.
    """
    found: dict[tuple[int, int], Losses] = {}
    for line in events.read_text(encoding="utf-8").splitlines() if events.exists() else []:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut short by a kill
        if event.get("event") == "first losses":
            losses = {name: value for name, value in event.items() if name not in BESIDES}
            found.setdefault((event["epoch"], event["batch"]), losses)
    if not found:
        raise UserError(
            f"{events}: it has no losses of first batches; expected a run's events.jsonl"
        )
    return dict(sorted(found.items()))


def compare_losses(
    one: dict[tuple[int, int], Losses], other: dict[tuple[int, int], Losses], limit: int
) -> tuple[int, str | None]:
    """Compares the first `limit` batches.

    Returns:
        How many were compared, and the first difference in words, with both values; None if all bits
        are equal.

    Raises:
        UserError: they have no batch in common.
    """
    common = [place for place in one if place in other][:limit]
    if not common:
        raise UserError("the two runs recorded no batch in common")
    for number, place in enumerate(common, 1):
        mine, yours = one[place], other[place]
        for name in {**mine, **yours}:
            a, b = mine.get(name), yours.get(name)
            if repr(a) != repr(b):  # so that nan equals nan
                epoch, batch = place
                text = f"batch {number} (epoch {epoch}, batch {batch + 1}): {name} {a!r}, now {b!r}"
                return number, text
    return len(common), None


def compare_manifests(one: Path, other: Path) -> list[str]:
    """What the first sessions of two manifests do not have in common, a line each."""
    sessions = [read_manifest(path).get("sessions") for path in (one, other)]
    if not all(sessions):
        missing = next(p for p, s in zip((one, other), sessions, strict=True) if not s)
        return [f"{missing}: there is none, or none that can be read"]
    before, now = (_flat({key: s[0].get(key) for key in COMPARED}) for s in sessions)  # pyright: ignore
    return [
        f"{name}: {before.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{name}.{key}" if name else str(key))
    return flat
