"""Downloads that resume after a lost connection. Only tools/get_weights.py downloads anything."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from detector.errors import UserError

CHUNK = 1 << 20


class _ConnectionLost(Exception):
    """The connection ended before the file did; the bytes received so far are kept."""


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> None:
    """Downloads a file; `path` appears only once it is complete and verified.

    Until then the bytes are in `path` + ".part", from which the next call resumes.

    Args:
        url: of the file.
        path: where to put it; a file that is there already is verified, not downloaded again.
        size: bytes it must have, where known.
        sha256: its hash in hexadecimal digits, where known.
        attempts: maximum number in a row without receiving a byte.
        pause: seconds before the second attempt; doubles with each further one.
        timeout: seconds without a byte after which the connection counts as lost.

    Raises:
        UserError: no connection, a wrong size or hash, or another file at `path`.
    """
    if path.exists():
        _verify(path, path, size, sha256, remedy="move it away")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch(url, part, size, timeout)
            break
        except _ConnectionLost as lost:
            received = part.exists() and part.stat().st_size > before
            failed = 1 if received else failed + 1
            if failed >= attempts:
                kept = part.stat().st_size if part.exists() else 0
                raise UserError(
                    f"{url}: {lost}; {kept:,} bytes are kept in {part}; run the command again to resume"
                ) from None
            time.sleep(pause * 2 ** (failed - 1))
    try:
        _verify(part, path, size, sha256, remedy="try again later")
    except UserError:
        part.unlink()
        raise
    part.replace(path)


def _fetch(url: str, part: Path, size: int | None, timeout: float) -> None:
    """Appends the missing bytes to `part`.

    Raises:
        UserError: the server refuses, or its file has another size.
        _ConnectionLost: the connection ended early, or the server failed for now.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends the whole file
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None else size
            if size is not None and total != size:
                part.unlink(missing_ok=True)
                raise UserError(f"{url}: the file there has {total:,} bytes, expected {size:,}")
            with (
                part.open("ab" if have else "wb") as file,
                tqdm(
                    total=total,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    desc=part.stem,
                    disable=None,
                ) as bar,
            ):
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            received = part.stat().st_size
            raise _ConnectionLost(f"the connection was lost at {received:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have == size:
            return
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file, so part of another one
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or error.code >= 500:
            raise _ConnectionLost(f"the server answered {error.code} {error.reason}") from None
        raise UserError(f"{url}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionLost(f"no connection: {getattr(error, 'reason', error)}") from None


def _verify(file: Path, name: Path, size: int | None, sha256: str | None, *, remedy: str) -> None:
    """Compares the size and the hash of a file with the published ones."""
    actual = file.stat().st_size
    if size is not None and actual != size:
        raise UserError(f"{name}: has {actual:,} bytes, expected {size:,}; {remedy}")
    if sha256 is not None:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != sha256:
            raise UserError(f"{name}: has sha256 {digest}, expected {sha256}; {remedy}")
