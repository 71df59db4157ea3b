"""Durations as people write them: 90s, 10m, 1.5h."""

import re

from detector.errors import UserError


def seconds(text: str) -> float:
    """The length of a duration.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise UserError(f"{text!r} is no duration; expected one such as 90s, 10m or 1.5h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
