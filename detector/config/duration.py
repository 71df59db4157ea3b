"""Durations as people write them: 90s, 10m, 1.5h."""

import re

from detector.errors import UserError


def parse_duration(text: str) -> float:
    """The length of a duration in seconds.

    Raises:
        UserError: not a number and one of the units s, m, h.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise UserError(f"{text!r} is not a duration; expected one such as 90s, 10m or 1.5h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
