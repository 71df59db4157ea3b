"""Image files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detector.errors import UserError
from detector.structures import Sample

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class UnreadableImage(Exception):
    """An image file that cannot be decoded; its name and the reason."""


def read_image(path: str) -> np.ndarray:
    """A file as uint8 [H, W, 3], RGB.

    The bytes are decoded, not the file: OpenCV returns a full-size picture for a truncated jpeg file.

    Raises:
        UnreadableImage: missing, empty, truncated or not an image.
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
        raise UnreadableImage(f"{path}: not an image that can be decoded")
    return image


def list_images(paths: Sequence[str]) -> list[Path]:
    """Files as they are, folders as the image files in them, sorted by name.

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
    """A sample of an image [H, W, 3] alone."""
    none = np.zeros((0, 4), np.float32)
    return Sample(image, none, np.zeros(0, np.int64), 0, none)
