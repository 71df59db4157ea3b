"""What `Detector` takes as images: paths, folders, arrays, PIL images, tensors, URLs, lists of them."""

import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from detector.data import UnreadableImage, list_images, read_image
from detector.errors import UserError

Channels = Literal["RGB", "BGR"]
URL_SCHEMES = ("http", "https")
URL_SECONDS = 30.0
URL_BYTES = 200_000_000  # of a file that is loaded from a URL, at most


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image to detect objects in.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        source: path or URL; empty for an image that came as pixels.
    """

    image: np.ndarray
    source: str = ""


def is_single(images: Any) -> bool:
    """Whether `images` is one image, so that one result is wanted: not a folder, a batch or a list."""
    if isinstance(images, (str, Path)):
        return _is_url(images) or not Path(images).is_dir()
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim <= 3
    return not isinstance(images, Iterable) or _is_pil(images)


def iterate_images(images: Any, *, channels: Channels | None, urls: bool) -> Iterator[InputImage]:
    """The images one by one; files are read when their turn comes.

    Args:
        images: see `Detector.__call__`.
        channels: order of the channels of numpy arrays.
        urls: whether a URL may be loaded.

    Raises:
        UserError: not an image, an array without `channels`, or a URL without `urls`.
        UnreadableImage: a file or a URL cannot be read or decoded.
    """
    if isinstance(images, (str, Path)):
        if _is_url(images):
            yield _load_url(str(images), allowed=urls)
            return
        for path in list_images([str(images)]):
            yield InputImage(read_image(str(path)), str(path))
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        yield from (InputImage(_check_array(each, channels)) for each in images)
    elif isinstance(images, np.ndarray):
        yield InputImage(_check_array(images, channels))
    elif isinstance(images, Tensor):
        batch = images if images.ndim == 4 else images[None]
        yield from (InputImage(_convert_tensor(each)) for each in batch)
    elif _is_pil(images):
        yield InputImage(_convert_pil(images))
    elif isinstance(images, Iterable):
        for each in images:
            yield from iterate_images(each, channels=channels, urls=urls)
    else:
        raise UserError(
            f"an image of type {type(images).__name__}: expected a path, a numpy array, a PIL image, a "
            f"tensor, or a list of them"
        )


def _check_array(array: np.ndarray, channels: Channels | None) -> np.ndarray:
    """An array as uint8 [H, W, 3], RGB; [H, W] and [H, W, 1] are grey."""
    if array.dtype != np.uint8:
        raise UserError(
            f"an image array of dtype {array.dtype}: expected uint8, 0 to 255; for floats in [0, 1] give "
            f"a tensor [3, H, W]"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    elif array.ndim != 3 or array.shape[2] != 3:
        raise UserError(
            f"an image array of shape {list(array.shape)}: expected [H, W, 3] or [H, W]"
        )
    elif channels not in ("RGB", "BGR"):
        raise UserError(
            'a numpy image does not say the order of its channels: give channels="BGR" (as OpenCV reads) '
            'or channels="RGB"'
        )
    elif channels == "BGR":
        array = array[:, :, ::-1]
    return _check_size(np.ascontiguousarray(array))


def _convert_tensor(image: Tensor) -> np.ndarray:
    """A tensor [3, H, W] RGB, uint8 or floats in [0, 1], as uint8 [H, W, 3]."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise UserError(
            f"an image tensor of shape {list(image.shape)}: expected [3, H, W], or [B, 3, H, W]"
        )
    if image.is_floating_point():
        low, high = (float(x) for x in image.aminmax()) if image.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"an image tensor with values {low:g} to {high:g}: expected floats in [0, 1] or uint8"
            )
        image = (image.float() * 255).round().byte()
    elif str(image.dtype) != "torch.uint8":
        raise UserError(
            f"an image tensor of dtype {image.dtype}: expected uint8 or floats in [0, 1]"
        )
    return _check_size(image.detach().permute(1, 2, 0).contiguous().cpu().numpy())


def _is_pil(image: Any) -> bool:
    return type(image).__module__.partition(".")[0] == "PIL" or hasattr(image, "getexif")


def _convert_pil(image: Any) -> np.ndarray:
    """A PIL image as uint8 [H, W, 3], RGB, turned as its EXIF data say."""
    from PIL import ImageOps

    return _check_size(np.array(ImageOps.exif_transpose(image).convert("RGB")))


def _check_size(image: np.ndarray) -> np.ndarray:
    if not image.size:
        raise UserError(f"an image of shape {list(image.shape)}: it has no pixels")
    return image


def _is_url(text: str | Path) -> bool:
    return isinstance(text, str) and urllib.parse.urlsplit(text).scheme in URL_SCHEMES


def _load_url(url: str, *, allowed: bool) -> InputImage:
    if not allowed:
        raise UserError(f"{url}: URLs are loaded only if asked for; give urls=True")
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as answer:
            data = answer.read(URL_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UnreadableImage(f"{url}: {getattr(error, 'reason', error)}") from None
    if len(data) > URL_BYTES:
        raise UnreadableImage(f"{url}: larger than {URL_BYTES // 10**6} MB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(data)
        try:
            return InputImage(read_image(str(path)), url)
        except UnreadableImage as error:
            raise UnreadableImage(str(error).replace(str(path), url)) from None
