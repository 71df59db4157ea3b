"""Reading image files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detector.errors import UserError
from detector.structures import Sample

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class UnreadableImage(Exception):
    """An image file cannot be decoded; the message names the file and the reason."""


def read_image(path: str) -> np.ndarray:
    """Reads a file as uint8 [H, W, 3], RGB.

    Decodes the bytes after checking them: OpenCV's imread returns a full-size image for a truncated jpeg.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or not an image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from None
    if not len(data):
        raise UnreadableImage(f"{path}: the file is empty")
    if data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:].tobytes():
        raise UnreadableImage(f"{path}: the jpeg is truncated")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # applies the EXIF orientation
    if image is None:
        raise UnreadableImage(f"{path}: not a decodable image")
    return image


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
