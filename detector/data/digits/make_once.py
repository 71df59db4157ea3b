"""Making an embedded data set in a folder, once, whatever is interrupted or runs at the same time."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from detector.errors import UserError


def make_once(
    root: Path, make: Callable[[Path], None], *, is_made: Callable[[], bool], replace: bool = False
) -> None:
    """Makes a data set beside `root` and renames it: an interrupted run leaves no incomplete one.

    Args:
        root: the folder; nothing may be in it, unless it is to be replaced.
        make: writes the data set to a folder.
        is_made: whether `root` holds it; another process may have made it in the meantime.
        replace: `root` holds an older version of the data set.

    Raises:
        UserError: the folder contains something else.
    """
    if not replace and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root}: contains files that are not the digits data set; move them, or set another "
            f"`root:` in the data YAML"
        )
    part = root.with_name(f".{root.name}-{secrets.token_hex(4)}")
    try:
        make(part)
        if replace:
            shutil.rmtree(root)
        try:
            part.rename(root)
        except OSError:
            if not is_made():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
