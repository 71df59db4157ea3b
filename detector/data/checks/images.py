"""Reads and decodes every image of a split: readability, size, digest, perceptual hash."""

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
from detector.data.store.index import Index, describe_size_mismatch

SIDE = 16  # of thumbnails, px
HASH_BYTES = 16
_GRID = 9  # cells per row and column: the hash has 8 x 8 differences each way
_SUBMITTED = 4096  # images given to the threads at a time: a million futures would need a gigabyte


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """Summary of the content of one image file.

    Attributes:
        size: (height, width), pixels, after EXIF rotation.
        digest: 16 bytes, of the file's content.
        hash: uint8 [16], perceptual hash; see `difference_hash`.
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
        numbers: int64 [n], in the index. sizes: int64 [n, 2], height and width.
        digests: n digests of file contents, hexadecimal. hashes: uint8 [n, 16].
        thumbnails: uint8 [n, 16, 16].
        unreadable: the reason, by image number.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    unreadable: dict[int, str]


def summarise_image(path: Path) -> ImageSummary:
    """Reads and decodes an image file.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or not an image.
    """
    image = read_image(str(path))
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()  # from the page cache
    bits, thumbnail = difference_hash(image)
    height, width = image.shape[:2]
    return ImageSummary((height, width), digest, bits, thumbnail)


def difference_hash(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A perceptual hash, uint8 [16], and a grey thumbnail, uint8 [16, 16], of an image [H, W, 3].

    The hash has 128 bits: whether each cell of a 9 x 9 grid is brighter than its left neighbour (64 bits)
    and its upper one (64), by more than one level, so that noise in uniform areas is ignored. After
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
    """Reads every image of a split in `workers` threads; decoding releases the GIL."""
    summaries: list[ImageSummary] = []
    numbers: list[int] = []
    unreadable: dict[int, str] = {}
    for number, summary in enumerate(
        _show_progress(_summarise_images(index, workers), name, len(index))
    ):
        if isinstance(summary, ImageSummary):
            summaries.append(summary)
            numbers.append(number)
        else:
            unreadable[number] = summary
    count = len(summaries)
    return Scan(
        numbers=np.array(numbers, np.int64),
        sizes=np.array([each.size for each in summaries], np.int64).reshape(-1, 2),
        digests=np.array([each.digest.hex() for each in summaries], "S32"),
        hashes=np.array([each.hash for each in summaries], np.uint8).reshape(count, HASH_BYTES),
        thumbnails=np.array([each.thumbnail for each in summaries], np.uint8).reshape(
            -1, SIDE, SIDE
        ),
        unreadable=unreadable,
    )


def _show_progress(
    summaries: Iterator[ImageSummary | str], name: str, total: int
) -> Iterator[ImageSummary | str]:
    return iter(tqdm(summaries, name, total, unit="image", leave=False, disable=None))


def _summarise_images(index: Index, workers: int) -> Iterator[ImageSummary | str]:
    """Yields a summary of each image, in the order of the index, or why it cannot be read."""

    def summarise(number: int) -> ImageSummary | str:
        try:
            return summarise_image(index.folder / str(index.files[number]))
        except UnreadableImage as error:
            return str(error)

    with ThreadPoolExecutor(max(workers, 1)) as threads:
        for start in range(0, len(index), _SUBMITTED):
            yield from threads.map(summarise, range(start, min(start + _SUBMITTED, len(index))))


def check_images(splits: Mapping[str, Index], scans: Mapping[str, Scan]) -> list[Problem]:
    """Finds files that cannot be read, and images whose size differs from the annotated one."""
    total = sum(map(len, splits.values()))
    faults = [line for scan in scans.values() for line in scan.unreadable.values()]
    problems = [Problem.collect("unreadable image", len(faults), total, faults)] if faults else []
    lines = [
        line for name, scan in scans.items() for line in _find_size_mismatches(splits[name], scan)
    ]
    if lines:
        problems.append(Problem.collect("size mismatch", len(lines), total, lines))
    return problems


def _find_size_mismatches(index: Index, scan: Scan) -> Iterator[str]:
    annotated = index.sizes[scan.numbers]
    for at in (annotated != scan.sizes).any(1).nonzero()[0]:
        (height, width), (real_height, real_width) = annotated[at].tolist(), scan.sizes[at].tolist()
        what = describe_size_mismatch((height, width), (real_height, real_width))
        yield f"{image_name(index, int(scan.numbers[at]))}: {what}"
