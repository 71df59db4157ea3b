"""Sizes of image files from their headers, and reading many files in threads."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from detector.data.store.image_files import (
    UnreadableImage,
    check_header,
    open_image_file,
    read_image,
)
from detector.data.store.image_header import read_header

A = TypeVar("A")
B = TypeVar("B")

# A local disk is as fast with 2 (50 to 100 us per image; decoding takes 5 ms); network disks gain.
THREADS = 8
CHUNK = 4096  # files submitted to the threads at a time: each future costs memory
SHOWN_FROM = 5_000  # files, about a second; fewer need no progress bar


def image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels of the image that `read_image` returns, upright by Exif.

    Headers are read without decoding. Rare cases (a tiff, a damaged header) are decoded, so that the
    result always agrees with `read_image`.

    Raises:
        UnreadableImage: missing, too large, or not an image.
    """
    try:
        with open_image_file(path) as file:
            header = read_header(file)
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read: {error.strerror}") from None
    check_header(path, header)
    if header is not None:
        return header.upright_size
    height, width = read_image(path).shape[:2]
    return height, width


def map_in_threads(function: Callable[[A], B], items: Sequence[A], *, label: str) -> Iterator[B]:
    """Yields function(item) for each item, in order; runs in threads, with a progress bar for many items.

    Args:
        function: reads a file: I/O-bound.
        items: what to read.
        label: of the progress bar.
    """
    hidden = True if len(items) < SHOWN_FROM else None  # None: hidden where there is no terminal
    bar = functools.partial(tqdm, desc=label, unit="image", leave=False, disable=hidden)
    with ThreadPoolExecutor(THREADS) as pool, bar(total=len(items)) as progress:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                progress.update()
