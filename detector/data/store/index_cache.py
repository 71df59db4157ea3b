"""An index kept on disk, for as long as the files it was read from stay the same.

It lies in ROOT/.detector or, where that cannot be written, in the user's cache folder
($XDG_CACHE_HOME, ~/.cache): numpy's .npz without pickle. Small data sets are read anew each time.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detector.data.store.index import Finding, Index, Texts

VERSION = 1  # raise it when readers read something else from the same files
FOLDER = ".detector"
# A file changed within this time of the reading is not trusted to show it in its times: clocks of file
# systems tick in milliseconds, on some in seconds.
SETTLED = 2.0  # seconds
ARRAYS = ("image_ids", "sizes", "starts", "boxes_xyxy", "labels", "crowd", "cut", "category_ids")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a split is read from, in short.

    Attributes:
        digest: differs where any of the files does.
        newest: the latest change of any of them, ns since 1970; 0 where `digest` is of their content.
    """

    digest: str
    newest: int = 0


def cached(
    root: Path,
    split: str,
    options: object,
    *,
    worth: bool,
    fingerprint: Callable[[], Fingerprint],
    read: Callable[[], Index],
) -> Index:
    """The index that `read` would return, from the cache if nothing has changed since.

    Args:
        root: the data set's folder.
        split: its name, for the file's.
        options: whatever else the index depends on; its text is compared.
        worth: whether the data set is large enough for a file of its own.
        fingerprint: of the files that `read` would open.
        read: opens them.
    """
    if not worth:
        return read()
    started = time.time_ns()
    now = fingerprint()
    name = f"{split}-{_digest(repr((str(root), options)))[:12]}.npz"
    places = [root / FOLDER / name, user_folder() / name]
    key = _digest(repr((VERSION, now.digest, options)))
    for path in places:
        index = load(path, key)
        if index is not None:
            return index
    index = read()
    if now.newest < started - SETTLED * 1e9:
        for path in places:
            with contextlib.suppress(OSError):
                save(index, path, key)
                break
    return index


def save(index: Index, path: Path, key: str) -> None:
    """Writes an index; whoever reads the file meanwhile sees the old one or the new one.

    Raises:
        OSError: the folder cannot be written.
    """
    about = {
        "key": key,
        "folder": str(index.folder),
        "names": index.names,
        "annotations": str(index.annotations),
        "findings": [asdict(finding) for finding in index.findings],
    }
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)  # ASCII: odd file names are escaped
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


def load(path: Path, key: str) -> Index | None:
    """The index in a file; None if there is none, if it has another key, or if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            if about["key"] != key:
                return None
            return Index(
                folder=Path(about["folder"]),
                files=Texts(content["file_blob"], content["file_starts"]),
                **{name: content[name] for name in ARRAYS},
                names=tuple(about["names"]),
                annotations=Path(about["annotations"]),
                findings=tuple(Finding(**each) for each in about["findings"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def user_folder() -> Path:
    """Where this user's caches are."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "detector"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
