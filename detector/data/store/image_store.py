"""Decoded images, kept in memory or in a file, which all reader processes of a machine share.

What is kept are the pixels as `ImageReader` returns them: whether an image is found here or read from
its file changes the time alone.

Two ways to keep them: every image in a place of its own (`image_cache`), or, for partners drawn from a
window of the epoch's order, the last positions in a ring (`tile_buffer`).
"""

import atexit
import hashlib
import mmap
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.data.augment.geometry import shrunk_shapes
from detector.data.store.index import Index
from detector.data.store.index_cache import FOLDER, user_folder
from detector.data.store.memory_limit import free_memory
from detector.errors import UserError

VERSION = 1  # raise it when the layout of the file or what is done to its images changes
RECORD = 2 * 8  # bytes: mark and sum of a place, uint64 each
GB = 10**9


@dataclass(frozen=True, slots=True)
class Room:
    """Where pixels are kept.

    Attributes:
        path: a file that every process of this machine can open.
        lasts: whether it outlives the run.
    """

    path: Path
    lasts: bool = False


class ImageStore:
    """Pixels of images in numbered places of one file.

    Any process may fill a place; two that fill it at once write the same bytes. A place says by its mark
    which image it holds, of which size and time of the file, and is marked once its pixels are there.

    Attributes:
        room: the file.
    """

    def __init__(
        self,
        room: Room,
        shapes: np.ndarray,
        starts: np.ndarray,
        *,
        places: int,
        ring: bool,
    ) -> None:
        """
        Args:
            room: a file, empty or of the same layout.
            shapes: int [n, 2], height and width in pixels of each image as it is kept.
            starts: int64 [places or more, and one], bytes; where each place begins behind the records.
            places: how many may be filled.
            ring: places are taken in turns by position; else image i has place i.
        """
        self.room = room
        self._shapes, self._places, self._ring = shapes, places, ring
        self._starts = starts + (len(starts) - 1) * RECORD
        self._open()

    def mark(self, number: int, path: Callable[[int], str]) -> int:
        """What tells image `number` from others and, in a file that outlives the run, from itself before
        its own file changed; 64 bits. 0 where there is no such file, of which nothing is kept.
        """
        if not self.room.lasts:
            return number + 1
        try:
            about = os.stat(path(number))  # noqa: PTH116  # a third of the time of Path's
        except OSError:
            return 0
        text = b"%d %d %d" % (number, about.st_size, about.st_mtime_ns)
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1

    def get(self, number: int, position: int | None, mark: int) -> np.ndarray | None:
        """Image `number`, uint8 [H, W, 3], not to be written into; None where it is not kept.

        Of a ring it stays what it is until the ring has come round.
        """
        place = self._place(number, position)
        if not mark or place is None or self._records.item(2 * place) != mark:
            return None
        height, width = self._shapes[number].tolist()
        start = self._starts.item(place)
        pixels = self._bytes[start : start + height * width * 3]
        if self.room.lasts and not self._checked[place]:
            if _sum(pixels) != self._records[place, 1]:  # of a machine that lost its power
                return None
            self._checked[place] = True
        return pixels.reshape(height, width, 3)

    def put(self, number: int, position: int | None, mark: int, image: np.ndarray) -> None:
        """Keeps an image, if there is a place for it."""
        place = self._place(number, position)
        if place is None or image.shape[:2] != tuple(self._shapes[number]):
            return
        pixels = np.ascontiguousarray(image).reshape(-1)
        try:
            self._write(place * RECORD, bytes(RECORD))
            self._write(int(self._starts[place]), pixels)
            total = _sum(pixels) if self.room.lasts else 0
            self._write(place * RECORD, np.array([mark, total], np.uint64))
        except OSError as error:
            self._places = 0  # of this process
            warnings.warn(
                f"{self.room.path}: {error.strerror}; images are read from their files from here on",
                RuntimeWarning,
                stacklevel=2,
            )

    def kept(self) -> int:
        """How many images are here."""
        return int(np.count_nonzero(self._records[:, 0]))

    def _place(self, number: int, position: int | None) -> int | None:
        if not self._ring:
            return number if number < self._places else None
        return None if position is None or not self._places else position % self._places

    def _open(self) -> None:
        size = int(self._starts[-1])
        self._file = os.open(self.room.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)  # takes no room before it is written to
        view = np.frombuffer(mmap.mmap(self._file, size, access=mmap.ACCESS_READ), np.uint8)
        records = view[: (len(self._starts) - 1) * RECORD]
        self._bytes, self._records = view, records.view(np.uint64).reshape(-1, 2)
        self._checked = np.zeros(len(self._records), bool)

    def _write(self, start: int, content: Any) -> None:
        left = memoryview(content).cast("B")
        while left:
            written = os.pwrite(self._file, left, start)
            start, left = start + written, left[written:]

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are started afresh: they open the file themselves."""
        return {k: v for k, v in vars(self).items() if k not in _OF_A_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


_OF_A_PROCESS = ("_file", "_bytes", "_records", "_checked")


def in_memory() -> Room:
    """Room in memory, which ends with this process; where the system knows no such file, a temporary one.

    Linux's has no limit of its own, which /dev/shm has: 64 MB in a container.
    """
    if hasattr(os, "memfd_create"):
        return Room(Path(f"/proc/{os.getpid()}/fd/{os.memfd_create('images')}"))
    handle, name = tempfile.mkstemp(suffix=".pixels")
    os.close(handle)
    atexit.register(Path(name).unlink, missing_ok=True)
    return Room(Path(name))


def on_disk(root: Path, name: str) -> Room:
    """A file in ROOT/.detector or, where that cannot be written, in the user's cache folder.

    Raises:
        UserError: neither can be written.
    """
    folders = root / FOLDER, user_folder()
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).open("ab").close()
        except OSError:
            continue
        return Room(folder / name, lasts=True)
    raise UserError(f"data.cache: neither {folders[0]} nor {folders[1]} can be written to; try ram")


def image_cache(index: Index, side: int, room: Room, limit: float | None) -> tuple[ImageStore, str]:
    """A store with a place for every image, as far as the room goes; the first images have one.

    Args:
        index: the images.
        side: larger ones are shrunk to it, px.
        room: memory or a file.
        limit: GB; unless said, half of what is free.

    Returns:
        The store, and a line on what fits.
    """
    shapes = shrunk_shapes(index.sizes, side)
    starts = _starts(shapes.prod(1) * 3)
    used = room.path.stat().st_blocks * 512
    free = free_memory() if not room.lasts else shutil.disk_usage(room.path.parent).free
    allowed = (used + free) / 2 if limit is None else limit * GB
    head = len(shapes) * RECORD
    places = int(np.searchsorted(starts[1:] + head, allowed, side="right"))
    store = ImageStore(room, shapes, starts, places=places, ring=False)
    where = f"in {room.path}" if room.lasts else "in memory"
    line = (
        f"data.cache: {(starts[-1] + head) / GB:.2f} GB for {len(shapes)} training images {where}"
    )
    if places < len(shapes):
        whose = "half of what is free" if limit is None else "data.cache_limit"
        line += (
            f", but only {allowed / GB:.2f} GB may be used ({whose}): {places} images are kept, the "
            f"others read from their files each time"
        )
    if store.kept():
        line += f"; {store.kept()} are there already"
    return store, line


def cache_name(index: Index, split: str, side: int) -> str:
    """The file name of a split's pixels: another one where anything differs that they depend on."""
    digest = hashlib.blake2b(digest_size=6)
    # decoders differ in the last bit from one version of OpenCV to the next
    digest.update(f"{VERSION} {cv2.__version__} {index.folder.resolve()}".encode())
    for array in (index.files.blob, index.files.starts, index.sizes):
        digest.update(array.tobytes())
    return f"{split}-{side}-{digest.hexdigest()}.pixels"


def tile_buffer(
    index: Index, side: int, positions: int, room: Room
) -> tuple[ImageStore | None, str]:
    """A store of the last `positions` of an epoch's order.

    It has to have room for all that the readers are at: whoever reads a place is then sure that nobody
    fills it anew.

    Returns:
        The store, None where half of the free memory is too little; and a line on it.
    """
    shapes = shrunk_shapes(index.sizes, side)
    starts = _starts(np.full(positions, shapes.prod(1).max(initial=0) * 3))
    needed, free = starts[-1] + positions * RECORD, free_memory()
    line = f"data.tile_buffer: {needed / GB:.2f} GB for the last {positions} training images"
    if needed > free / 2:
        return None, (
            f"{line} are more than half of the memory that is free, {free / GB:.2f} GB: they are read "
            f"from their files each time"
        )
    return ImageStore(room, shapes, starts, places=positions, ring=True), line


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Where places of these sizes begin, and where the last one ends; multiples of 8 bytes."""
    return np.concatenate([[0], np.cumsum((sizes + 7) // 8 * 8)]).astype(np.int64)


def _sum(pixels: np.ndarray) -> int:
    """Changes where bytes were lost; as fast as memory."""
    whole = len(pixels) // 8 * 8
    total = int(pixels[:whole].view(np.uint64).sum()) + int(pixels[whole:].sum())
    return total % 2**64
