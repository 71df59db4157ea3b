"""Width and height of image files, from their headers; and many files at a time."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from detector.data.store.image_files import UnreadableImage, read_image

A = TypeVar("A")
B = TypeVar("B")

# A local disk is as fast with 2: 50 to 100 us an image, where decoding takes 5 ms. Network disks gain.
THREADS = 8
CHUNK = 4096  # files handed to the threads at a time: a future each costs memory
SHOWN_FROM = 5_000  # files, a second or so; fewer need no progress bar
ORIENTATION = 0x0112  # the EXIF tag


def image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels of the image that `read_image` returns, so after EXIF's rotation.

    The header is read with Pillow, without decoding; whatever is rare (an orientation in another
    format than jpeg, a tiff, a header Pillow does not read) is decoded, since OpenCV's word counts.

    Raises:
        UnreadableImage: missing, or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
            if image.format == "JPEG":
                return (width, height) if turned in (5, 6, 7, 8) else (height, width)
            if image.format in ("PNG", "BMP", "WEBP") and turned == 1:
                return height, width
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such file") from None
    except Exception:  # Pillow raises many kinds for damaged headers
        pass
    height, width = read_image(path).shape[:2]
    return height, width


def map_in_threads(function: Callable[[A], B], items: Sequence[A], *, about: str) -> Iterator[B]:
    """function(item) for each item, in order, several at a time; many show a progress bar.

    Args:
        function: reads a file; waits more than it computes.
        items: any number of them.
        about: a word for the progress bar.
    """
    hidden = True if len(items) < SHOWN_FROM else None  # None: hidden where there is no terminal
    bar = functools.partial(tqdm, desc=about, unit="image", leave=False, disable=hidden)
    with ThreadPoolExecutor(THREADS) as pool, bar(total=len(items)) as progress:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                progress.update()
