"""How `read_image` reads all kinds of files, and that sizes from headers agree with it."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detector.data import UnreadableImage, read_image
from detector.data.store.image_sizes import CHUNK, image_size, map_in_threads

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8), (60, 40))
GREY = SMOOTH[..., 0]


def saved(tmp_path, image, suffix, **options):
    path = tmp_path / f"x{suffix}"
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(SMOOTH), suffix, exif=exif)
    image = read_image(path)
    assert image_size(path) == image.shape[:2]
    if suffix != ".tif":  # OpenCV turns it, whatever is asked for
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)), int)
        assert image.shape == upright.shape
        assert np.abs(image.astype(int) - upright).mean() < 2


MODES = {
    ".jpg": ("L", "RGB", "CMYK"),
    ".png": ("L", "RGB", "RGBA", "LA", "P", "I;16"),
    ".webp": ("L", "RGB", "RGBA", "P"),
    ".tif": ("L", "RGB", "RGBA", "CMYK", "LA", "P", "I;16"),
    ".bmp": ("L", "RGB", "RGBA", "P"),
}


@pytest.mark.parametrize(("suffix", "mode"), [(s, m) for s, modes in MODES.items() for m in modes])
def test_modes(tmp_path, suffix, mode):
    """Grey, 16 bits, transparent, palettes and inks: RGB with 8 bits, of about the right colour."""
    sixteen = GREY.astype(np.uint16) * 257
    image = Image.fromarray(sixteen) if mode == "I;16" else Image.fromarray(SMOOTH).convert(mode)
    path = saved(tmp_path, image, suffix, **({"lossless": True} if suffix == ".webp" else {}))
    pixels = read_image(path)
    assert (pixels.shape, pixels.dtype) == ((40, 60, 3), np.uint8)
    assert image_size(path) == (40, 60)
    wanted = (
        np.repeat(GREY[..., None], 3, 2) if mode == "I;16" else np.asarray(image.convert("RGB"))
    )
    assert np.abs(pixels.astype(int) - wanted).mean() < 5


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut"])
def test_unreadable(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"x\.jpg"):
        image_size(str(path))
    with pytest.raises(UnreadableImage, match="no such file"):
        image_size(str(tmp_path / "none.jpg"))


def test_threads_keep_the_order():
    many = range(2 * CHUNK + 3)
    assert list(map_in_threads(lambda n: n * n, many, label="")) == [n * n for n in many]
    assert list(map_in_threads(lambda n: n, [], label="")) == []
