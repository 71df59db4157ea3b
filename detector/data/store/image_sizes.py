"""Sizes of image files from their headers, and reading many files in threads."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from detector.data.store.image_files import UnreadableImage, read_image

A = TypeVar("A")
B = TypeVar("B")

# A local disk is as fast with 2 (50 to 100 us per image; decoding takes 5 ms); network disks gain.
THREADS = 8
CHUNK = 4096  # files submitted to the threads at a time: each future costs memory
SHOWN_FROM = 5_000  # files, about a second; fewer need no progress bar
ORIENTATION = 0x0112  # the EXIF tag


def image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels of the image that `read_image` returns, after EXIF rotation.

    Pillow reads the header without decoding. Rare cases (an orientation in a format other than jpeg, a
    tiff, a header that Pillow cannot read) are decoded, so that the result always agrees with OpenCV.

    Raises:
        UnreadableImage: missing, or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
            if image.format == "JPEG":
                return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
            if image.format in ("PNG", "BMP", "WEBP") and orientation == 1:
                return height, width
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such file") from None
    except Exception:  # Pillow raises many kinds for damaged headers
        pass
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
