"""Every image of a split, read and decoded: can it be, how large is it, what does it show?"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from detector.data.checks.labels import image_name
from detector.data.checks.problems import Problem
from detector.data.store.image_files import UnreadableImage, read_image
from detector.data.store.index import Index

SIDE = 16  # of the thumbnails, px
HASH_BYTES = 16
_GRID = 9  # cells a side that the hash compares: 8 differences each way
_AT_ONCE = 4096  # images handed to the threads: a million waiting ones would need a gigabyte


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What one file is.

    Attributes:
        size: (height, width), pixels, turned as its EXIF orientation says.
        digest: 16 bytes, of the file's content.
        hash: uint8 [16], 128 bits of what it shows; see `difference_hash`.
        thumbnail: uint8 [16, 16], grey.
    """

    size: tuple[int, int]
    digest: bytes
    hash: np.ndarray
    thumbnail: np.ndarray


@dataclass(frozen=True, slots=True)
class Scan:
    """The n images of a split that could be read.

    Attributes:
        numbers: int64 [n], which of the index's images. sizes: int64 [n, 2], height and width.
        digests: n file contents as 16 bytes each. hashes: uint8 [n, 16].
        thumbnails: uint8 [n, 16, 16].
        unreadable: why, by image number.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    unreadable: dict[int, str]


def summarise_image(path: Path) -> ImageSummary:
    """Reads and decodes a file.

    Raises:
        UnreadableImage: missing, empty, truncated or not an image.
    """
    image = read_image(str(path))
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()  # from the page cache
    bits, thumbnail = difference_hash(image)
    height, width = image.shape[:2]
    return ImageSummary((height, width), digest, bits, thumbnail)


def difference_hash(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A hash of what an image [H, W, 3] shows, uint8 [16], and its grey thumbnail, uint8 [16, 16].

    128 bits: whether each cell of a 9 x 9 grid is brighter than its left neighbour (64 bits) and than its
    upper one (64), by more than one level, so that noise in even areas does not count. After
    N. Krawetz's dHash. Resized and recompressed copies differ in few bits.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    side = _GRID * SIDE
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    cells = small.reshape(_GRID, SIDE, _GRID, SIDE).mean((1, 3))  # [9, 9]
    thumbnail = small.reshape(SIDE, _GRID, SIDE, _GRID).mean((1, 3))  # [16, 16]
    across = np.diff(cells, axis=1)[:-1] > 1
    down = np.diff(cells, axis=0)[:, :-1] > 1
    bits = np.packbits(np.concatenate([across.ravel(), down.ravel()]))
    return bits, np.round(thumbnail).astype(np.uint8)


def scan_images(name: str, index: Index, *, workers: int) -> Scan:
    """Looks at every image of a split in so many threads; decoding lets go of Python's lock."""
    looks: list[ImageSummary] = []
    numbers: list[int] = []
    unreadable: dict[int, str] = {}
    for number, look in enumerate(_progress(_looks(index, workers), name, len(index))):
        if isinstance(look, ImageSummary):
            looks.append(look)
            numbers.append(number)
        else:
            unreadable[number] = look
    count = len(looks)
    return Scan(
        numbers=np.array(numbers, np.int64),
        sizes=np.array([look.size for look in looks], np.int64).reshape(-1, 2),
        digests=np.array([look.digest.hex() for look in looks], "S32"),
        hashes=np.array([look.hash for look in looks], np.uint8).reshape(count, HASH_BYTES),
        thumbnails=np.array([look.thumbnail for look in looks], np.uint8).reshape(-1, SIDE, SIDE),
        unreadable=unreadable,
    )


def _progress(
    looks: Iterator[ImageSummary | str], name: str, total: int
) -> Iterator[ImageSummary | str]:
    return iter(tqdm(looks, name, total, unit="image", leave=False, disable=None))


def _looks(index: Index, workers: int) -> Iterator[ImageSummary | str]:
    """In the order of the index: what each file is, or why it cannot be read."""

    def look(number: int) -> ImageSummary | str:
        try:
            return summarise_image(index.folder / str(index.files[number]))
        except UnreadableImage as error:
            return str(error)

    with ThreadPoolExecutor(max(workers, 1)) as threads:
        for start in range(0, len(index), _AT_ONCE):
            yield from threads.map(look, range(start, min(start + _AT_ONCE, len(index))))


def check_images(splits: Mapping[str, Index], scans: Mapping[str, Scan]) -> list[Problem]:
    """Files that cannot be read, and those of another size than their annotations say."""
    total = sum(map(len, splits.values()))
    faults = [line for scan in scans.values() for line in scan.unreadable.values()]
    problems = [Problem.collect("unreadable image", len(faults), total, faults)] if faults else []
    lines = [line for name, scan in scans.items() for line in _other_sizes(splits[name], scan)]
    if lines:
        problems.append(Problem.collect("size mismatch", len(lines), total, lines))
    return problems


def _other_sizes(index: Index, scan: Scan) -> Iterator[str]:
    said = index.sizes[scan.numbers]
    for at in (said != scan.sizes).any(1).nonzero()[0]:
        (height, width), (real_height, real_width) = said[at], scan.sizes[at]
        turned = " (turned?)" if (height, width) == (real_width, real_height) else ""
        yield (
            f"{image_name(index, int(scan.numbers[at]))}: the file is {real_width} x {real_height}, "
            f"annotated as {width} x {height}{turned}"
        )
