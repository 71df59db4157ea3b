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


def format_duration(seconds: float) -> str:
    """A duration with two digits or more, for people.

    Example:
        >>> format_duration(39), format_duration(250), format_duration(8000)
        ('39 s', '4 min', '2 h 13 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
