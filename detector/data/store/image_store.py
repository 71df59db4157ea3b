"""Caches of decoded images, in memory or in a file, shared by all workers and ranks of a machine.

They hold the pixels as `ImageReader` returns them, so that caching affects only speed.

`open_image_cache` gives every image its own slot. `open_tile_buffer` keeps the last positions of the
epoch's order in a ring, for mosaics that draw from a window of it.
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

from detector.data.augment.geometry import shrink_shapes
from detector.data.store.free_memory import free_memory
from detector.data.store.index import Index
from detector.data.store.index_cache import FOLDER, user_cache_folder
from detector.errors import UserError

VERSION = 2  # increase it when the layout of the file or the processing of its images changes
RECORD = 2 * 8  # bytes: key and checksum of a slot, uint64 each
GB = 10**9


@dataclass(frozen=True, slots=True)
class PixelFile:
    """The file that holds the pixels.

    Attributes:
        path: a file that every process of this machine can open.
        persistent: whether it outlives the run.
    """

    path: Path
    persistent: bool = False


class ImageStore:
    """Pixels of images in numbered slots of one file.

    Any process may fill a slot; two that fill it at the same time write the same bytes. The key of a slot
    identifies its image (and the size and time of the image file); it is written after the pixels.

    Attributes:
        file: the file.
    """

    def __init__(
        self,
        file: PixelFile,
        shapes: np.ndarray,
        starts: np.ndarray,
        *,
        slots: int,
        ring: bool,
    ) -> None:
        """
        Args:
            file: empty, or of the same layout.
            shapes: int [n, 2], height and width in pixels of each image as it is stored.
            starts: int64 [all slots + 1], bytes; where each slot starts, after the records.
            slots: how many of them may be filled.
            ring: whether the slot is the position modulo `slots`; otherwise image i has slot i.
        """
        self.file = file
        self._shapes, self._slots, self._ring = shapes, slots, ring
        self._starts = starts + (len(starts) - 1) * RECORD
        self._open()

    def key(self, number: int, path: Callable[[int], str]) -> int:
        """A 64-bit key of image `number`; 0 if its file does not exist, so that nothing is stored.

        In a persistent file the key changes with the size or the time of the image file.
        """
        if not self.file.persistent:
            return number + 1
        try:
            stat = os.stat(path(number))  # noqa: PTH116  # a third of the time of Path's
        except OSError:
            return 0
        text = b"%d %d %d" % (number, stat.st_size, stat.st_mtime_ns)
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1

    def get(self, number: int, position: int | None, key: int) -> np.ndarray | None:
        """Image `number`, uint8 [H, W, 3], not to be written to; None if it is not stored.

        In a ring its pixels are overwritten once the ring has wrapped around.
        """
        slot = self._slot(number, position)
        if not key or slot is None or self._records.item(2 * slot) != key:
            return None
        height, width = self._shapes[number].tolist()
        start = self._starts.item(slot)
        pixels = self._bytes[start : start + height * width * 3]
        if self.file.persistent and not self._checked[slot]:
            if _checksum(pixels) != self._records[slot, 1]:  # written before a power failure
                return None
            self._checked[slot] = True
        return pixels.reshape(height, width, 3)

    def put(self, number: int, position: int | None, key: int, image: np.ndarray) -> None:
        """Stores an image if it has a slot."""
        slot = self._slot(number, position)
        if slot is None or image.shape[:2] != tuple(self._shapes[number]):
            return
        pixels = np.ascontiguousarray(image).reshape(-1)
        try:
            self._write(slot * RECORD, bytes(RECORD))
            self._write(int(self._starts[slot]), pixels)
            total = _checksum(pixels) if self.file.persistent else 0
            self._write(slot * RECORD, np.array([key, total], np.uint64))
        except OSError as error:
            self._slots = 0  # in this process
            warnings.warn(
                f"{self.file.path}: {error.strerror}; caching stops, images are read from their files",
                RuntimeWarning,
                stacklevel=2,
            )

    def count(self) -> int:
        """How many images are stored."""
        return int(np.count_nonzero(self._records[:, 0]))

    def _slot(self, number: int, position: int | None) -> int | None:
        if not self._ring:
            return number if number < self._slots else None
        return None if position is None or not self._slots else position % self._slots

    def _open(self) -> None:
        size = int(self._starts[-1])
        self._file = os.open(self.file.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)  # sparse: takes no space until it is written to
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
        """For spawned workers, which open the file themselves."""
        return {k: v for k, v in vars(self).items() if k not in _PROCESS_LOCAL}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


_PROCESS_LOCAL = ("_file", "_bytes", "_records", "_checked")


def open_memory_file() -> PixelFile:
    """Opens a file in memory, or a temporary file where there is no memfd; it ends with this process.

    A memfd has no size limit of its own; /dev/shm is limited to 64 MB in a container.
    """
    if hasattr(os, "memfd_create"):
        return PixelFile(Path(f"/proc/{os.getpid()}/fd/{os.memfd_create('images')}"))
    handle, name = tempfile.mkstemp(suffix=".pixels")
    os.close(handle)
    atexit.register(Path(name).unlink, missing_ok=True)
    return PixelFile(Path(name))


def open_disk_file(root: Path, name: str) -> PixelFile:
    """Opens a file in ROOT/.detector or, where that cannot be written, in the user's cache folder.

    Raises:
        UserError: neither can be written.
    """
    folders = root / FOLDER, user_cache_folder()
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).open("ab").close()
        except OSError:
            continue
        return PixelFile(folder / name, persistent=True)
    raise UserError(f"data.cache: neither {folders[0]} nor {folders[1]} can be written to; try ram")


def measure_image_cache(index: Index, max_size: int) -> int:
    """Bytes that `open_image_cache` needs for all images."""
    sizes = shrink_shapes(index.sizes, max_size).prod(1) * 3
    return int(_slot_starts(sizes)[-1]) + len(sizes) * RECORD


def open_image_cache(
    index: Index, max_size: int, file: PixelFile, limit: float | None
) -> tuple[ImageStore, str]:
    """Opens a cache with a slot for every image or, if they need too much space, for the first ones.

    Args:
        index: the images.
        max_size: images whose longer side is larger are stored shrunk to it, pixels.
        file: in memory or on disk.
        limit: GB; None: half of the free memory or disk space.

    Returns:
        The cache, and a message on how much of the data set fits.
    """
    shapes = shrink_shapes(index.sizes, max_size)
    starts = _slot_starts(shapes.prod(1) * 3)
    used = file.path.stat().st_blocks * 512
    free = free_memory() if not file.persistent else shutil.disk_usage(file.path.parent).free
    allowed = (used + free) / 2 if limit is None else limit * GB
    head = len(shapes) * RECORD
    slots = int(np.searchsorted(starts[1:] + head, allowed, side="right"))
    store = ImageStore(file, shapes, starts, slots=slots, ring=False)
    where = f"in {file.path}" if file.persistent else "in memory"
    line = (
        f"data.cache: {len(shapes)} training images need {(starts[-1] + head) / GB:.2f} GB {where}"
    )
    if slots < len(shapes):
        free_of = "disk space" if file.persistent else "memory"
        limited_by = f"half of the free {free_of}" if limit is None else "data.cache_limit"
        line += (
            f"; the limit is {allowed / GB:.2f} GB ({limited_by}): {slots} images are cached, the others "
            f"are read from their files each time"
        )
    if store.count():
        line += f"; {store.count()} are cached already"
    return store, line


def cache_name(index: Index, split: str, max_size: int) -> str:
    """The file name of a split's cache; it depends on everything that the pixels depend on."""
    digest = hashlib.blake2b(digest_size=6)
    # decoded pixels may differ between versions of OpenCV
    digest.update(f"{VERSION} {cv2.__version__} {index.folder.resolve()}".encode())
    for array in (index.files.blob, index.files.starts, index.sizes):
        digest.update(array.tobytes())
    return f"{split}-{max_size}-{digest.hexdigest()}.pixels"


def open_tile_buffer(
    index: Index, max_size: int, positions: int, file: PixelFile
) -> tuple[ImageStore | None, str]:
    """Opens a cache of the last `positions` samples of an epoch's order.

    `positions` has to include those that workers are preparing, so that no slot is overwritten while it
    is read.

    Returns:
        The cache, or None if it needs more than half of the free memory; and a message on its size.
    """
    shapes = shrink_shapes(index.sizes, max_size)
    starts = _slot_starts(np.full(positions, shapes.prod(1).max(initial=0) * 3))
    needed, free = starts[-1] + positions * RECORD, free_memory()
    line = f"data.tile_buffer: the last {positions} training images need {needed / GB:.2f} GB"
    if needed > free / 2:
        return None, (
            f"{line}, more than half of the free memory ({free / GB:.2f} GB): no images are kept, they "
            f"are read from their files each time"
        )
    return ImageStore(file, shapes, starts, slots=positions, ring=True), line


def _slot_starts(sizes: np.ndarray) -> np.ndarray:
    """Where slots of these sizes start and the last one ends, in bytes; multiples of 8."""
    return np.concatenate([[0], np.cumsum((sizes + 7) // 8 * 8)]).astype(np.int64)


def _checksum(pixels: np.ndarray) -> int:
    """A 64-bit sum: detects lost bytes at memory speed."""
    whole = len(pixels) // 8 * 8
    total = int(pixels[:whole].view(np.uint64).sum()) + int(pixels[whole:].sum())
    return total % 2**64
