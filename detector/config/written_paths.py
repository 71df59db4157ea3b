"""Paths as data YAMLs, lists of images and annotations have them, written on whatever system."""

import re
from collections.abc import Callable

_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def find_written(path: str, exists: Callable[[str], bool]) -> str:
    """A path as it is written or, if only that exists, with slashes in place of its backslashes.

    Windows separates folders by backslashes, which elsewhere are letters that a name may have.
    """
    if "\\" not in path or exists(path):
        return path
    other = path.replace("\\", "/")
    return other if exists(other) else path


def is_of_windows(path: str) -> bool:
    r"""Whether a path starts with a drive or a server of Windows: `C:\data`, `\\server\data`."""
    return _OF_WINDOWS.match(path) is not None
