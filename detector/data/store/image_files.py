"""Reading image files."""

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from detector.data.store.image_header import (
    ImageHeader,
    is_jpeg_complete,
    is_tiff_complete,
    make_upright,
    read_header,
)
from detector.errors import UserError
from detector.structures import Sample

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", 2**30))  # OpenCV's own limits
MAX_SIDE = 2**20
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH


class UnreadableImage(Exception):
    """An image file cannot be decoded; the message names the file and the reason."""


def open_image_file(path: str) -> BinaryIO:
    """Opens a file for reading; a FIFO or a device is refused: reading it might never end.

    Raises:
        UnreadableImage: the file is missing, empty, or not a file.
    """
    try:
        # without O_NONBLOCK, opening a FIFO waits for a writer
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableImage(f"{path}: cannot be read: {reason}") from None
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISREG(status.st_mode):
        raise UnreadableImage(f"{path}: the file is empty")
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
    raise UnreadableImage(f"{path}: it is {what}, not an image file")


def read_image(path: str) -> np.ndarray:
    """Reads a file as uint8 [H, W, 3], RGB, upright by its Exif orientation; see `image_header`.

    Images of 16 bits are read with the depth that their values need: cameras write 12 bits into 16.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, too large or not an image.
    """
    try:
        with open_image_file(path) as file:
            data = file.read()
    except (OSError, MemoryError) as error:
        raise UnreadableImage(f"{path}: cannot be read: {error or 'out of memory'}") from None
    return decode_image(data, path)


def decode_image(data: bytes, path: str) -> np.ndarray:
    """Decodes the content of an image file; see `read_image`. `path` is what messages name.

    Raises:
        UnreadableImage: truncated, too large or not an image.
    """
    header = read_header(io.BytesIO(data))
    check_header(path, header)
    # OpenCV before 4.12 returns a full-size picture for a truncated jpeg
    if data[:2] == b"\xff\xd8" and not is_jpeg_complete(data, header.pixels_at if header else 2):
        raise UnreadableImage(f"{path}: the jpeg is truncated")
    if data[:2] in (b"II", b"MM") and not is_tiff_complete(data):
        raise UnreadableImage(f"{path}: the tiff is truncated: a part of its pixels is zeros")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:  # more pixels than OpenCV or the memory allows
        raise UnreadableImage(f"{path}: cannot be decoded: {error.err}") from None
    if image is None:
        raise UnreadableImage(f"{path}: not a decodable image{_describe_samples(data)}")
    image = _reduce_to_8_bits(image, path)
    return image if header is None else make_upright(image, header.orientation)


def check_header(path: str, header: ImageHeader | None) -> None:
    """Checks that OpenCV decodes an image of this size.

    Raises:
        UnreadableImage: it has too many pixels.
    """
    if header is None:
        return
    height, width = header.height, header.width
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise UnreadableImage(
            f"{path}: too large: it has {width} x {height} pixels, more than {MAX_PIXELS:,} in all or "
            f"{MAX_SIDE:,} a side; tile or shrink it"
        )


def _reduce_to_8_bits(image: np.ndarray, path: str) -> np.ndarray:
    """Pixels as uint8; the smallest usual depth that holds all values decides what is white."""
    if image.dtype == np.uint8:
        return image
    lowest, highest = int(image.min()), int(image.max())
    if image.dtype.kind not in "iu" or lowest < 0:
        raise UnreadableImage(
            f"{path}: its samples are {image.dtype}, from {lowest} to {highest}; "
            f"expected 8 or 16 bits without sign: convert it"
        )
    depth = next(bits for bits in DEPTHS if highest < 1 << bits)
    return (image >> (depth - 8)).astype(np.uint8)


def _describe_samples(data: bytes) -> str:
    """Of a tiff that OpenCV does not decode: which samples it has, "" for other formats."""
    if data[:2] not in (b"II", b"MM"):
        return ""
    try:
        with TiffImageFile(io.BytesIO(data)) as image:
            return f" (a tiff of Pillow's mode {image.mode}); expected 8 or 16 bits without sign"
    except Exception:  # of a damaged header, Pillow raises many kinds
        return ""


def list_images(paths: Sequence[str]) -> list[Path]:
    """Lists image files: files as given; of folders the image files in them, sorted by name.

    Raises:
        UserError: no such file or folder, or a folder without images.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path}: no images in this folder ({', '.join(SUFFIXES)})")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return files


def sample_without_labels(image: np.ndarray) -> Sample:
    """A sample of an image, uint8 [H, W, 3], without boxes."""
    none = np.zeros((0, 4), np.float32)
    return Sample(image, none, np.zeros(0, np.int64), 0, none)
