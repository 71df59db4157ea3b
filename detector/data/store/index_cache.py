"""A cache of indices on disk, valid as long as the files they were read from do not change.

It is in ROOT/.detector or, where that cannot be written, in the user's cache folder
($XDG_CACHE_HOME, ~/.cache): numpy's .npz without pickle. Small data sets are not cached.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detector.data.store.index import Finding, Index, StringArray
from detector.errors import require_file

VERSION = 5  # increase it when readers return something else for the same files
FOLDER = ".detector"
# An index is cached only if its files were last changed this long before they were read: file systems
# store times in steps of milliseconds, some of seconds, and a change within one step does not show.
SETTLED = 2.0  # seconds
ARRAYS = (
    "image_ids",
    "sizes",
    "starts",
    "boxes_xyxy",
    "labels",
    "crowd",
    "clipped",
    "category_ids",
)
# what numpy, zipfile and json raise for a damaged file; a UserError is a ValueError
DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: an encrypted record
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of the files that a split is read from.

    Attributes:
        digest: changes with any of the files.
        newest: time of the latest change, ns since 1970; 0 if `digest` is computed from file contents.
    """

    digest: str
    newest: int = 0


def load_or_read(
    root: Path,
    split: str,
    options: object,
    *,
    enabled: bool,
    fingerprint: Callable[[], Fingerprint],
    read: Callable[[], Index],
) -> Index:
    """Returns what `read` returns, from the cache if no file has changed since.

    Args:
        root: the data set's folder.
        split: its name, for the name of the cache file.
        options: everything else that the index depends on; compared by `repr`.
        enabled: whether to use the cache at all.
        fingerprint: of the files that `read` would open.
        read: parses these files.
    """
    if not enabled:
        return read()
    started = time.time_ns()
    files = fingerprint()
    name = f"{split}-{_digest(repr((str(root), options)))[:12]}.npz"
    paths = [root / FOLDER / name, user_cache_folder() / name]
    key = _digest(repr((VERSION, files.digest, options)))
    for path in paths:
        index = load_index(path, key)
        if index is not None:
            return index
    index = read()
    if files.newest < started - SETTLED * 1e9:
        for path in paths:
            with contextlib.suppress(OSError):
                save_index(index, path, key)
                break
    return index


def save_index(index: Index, path: Path, key: str) -> None:
    """Writes an index atomically: other processes see the old file or the new one.

    Raises:
        OSError: the folder cannot be written to.
    """
    header = {
        "key": key,
        "folder": str(index.folder),
        "names": index.names,
        "annotations": str(index.annotations),
        "findings": [asdict(finding) for finding in index.findings],
    }
    # in ASCII: file names that are not UTF-8 are escaped
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    arrays = {name: getattr(index, name) for name in ARRAYS}
    files = {"file_blob": index.files.blob, "file_starts": index.files.starts}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, about=text, **files, **arrays)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def load_index(path: Path, key: str) -> Index | None:
    """Reads an index; None if the file is missing or damaged, or has another key."""
    try:
        require_file(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            header = json.loads(content["about"].tobytes())
            if header["key"] != key:
                return None
            return Index(
                folder=Path(header["folder"]),
                files=StringArray(content["file_blob"], content["file_starts"]),
                **{name: content[name] for name in ARRAYS},
                names=tuple(header["names"]),
                annotations=Path(header["annotations"]),
                findings=tuple(Finding(**each) for each in header["findings"]),
            )
    except DAMAGED:
        return None


def user_cache_folder() -> Path:
    """The folder for this user's caches."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return home.expanduser() / "detector"
    except RuntimeError:  # a user without a home folder, as in some containers
        return Path(tempfile.gettempdir()) / "detector"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
