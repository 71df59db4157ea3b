"""Size and orientation of an image file from its header: the one place that decides both.

`read_image` turns the pixels by what this module says, and `image_size` swaps width and height, so that
they agree in every format. Exif's Orientation counts, as in browsers, which labelling tools run in; XMP's
is ignored. Pillow and OpenCV disagree on XMP, on Exif behind a PNG's pixels, and on an Orientation of
another type than SHORT.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

_ORIENTATION = 0x0112  # the Exif tag
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # Exif's types; the tag should have 3
_SOS, _EOI, _APP1, _EXIF = 0xDA, 0xD9, 0xE1, b"Exif\0\0"
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # in the pixels: stuffing, restarts
_HAS_LENGTH = np.array([code not in _ALONE and code != 0xFF for code in range(256)])
_COMPRESSION, _PARTS = 259, ((273, 279), (324, 325))  # tiff: offsets and bytes of strips, of tiles
_NEVER_ZERO = {5, 7, 8, 32946, 34925, 50000, 50001}  # LZW, JPEG, deflate, LZMA, Zstandard, WebP
_ZEROS = 64  # bytes; no encoder of these ends with so many zeros
_TURNS = {
    3: cv2.ROTATE_180,
    6: cv2.ROTATE_90_CLOCKWISE,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        height, width: of the stored pixels.
        orientation: 1 to 8, by Exif; 1: the stored pixels are upright.
        pixels_at: jpeg: the byte where the first scan starts; 0 in other formats.
    """

    height: int
    width: int
    orientation: int = 1
    pixels_at: int = 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        turned = self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def read_header(file: BinaryIO) -> ImageHeader | None:
    """Reads the header of a jpeg, png, webp or bmp.

    Returns:
        None for other formats, tiff among them, and for damaged headers: whatever size OpenCV decodes
        counts, without a turn (it turns a tiff itself).
    """
    magic = file.read(12)
    file.seek(0)
    try:
        if magic[:2] == b"\xff\xd8":
            return _read_jpeg(file)
        if magic[:8] == b"\x89PNG\r\n\x1a\n":
            return _read_png(file)
        if magic[:4] == b"RIFF" and magic[8:] == b"WEBP":
            with WebPImageFile(file) as image:
                exif = image.info.get("exif", b"")
                return ImageHeader(image.height, image.width, parse_orientation(exif))
        if magic[:2] == b"BM":
            with BmpImageFile(file) as image:
                return ImageHeader(image.height, image.width)
    except Exception:  # of a damaged header: struct.error, and many kinds from Pillow
        return None
    return None


def parse_orientation(exif: bytes) -> int:
    """The Orientation in a block of Exif, 1 to 8; 1 where it is missing or damaged."""
    exif = exif.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _ORIENTATION and kind in _INTEGERS and values == 1:
                (value,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def make_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors stored pixels [h, w, 3] as an Exif orientation says."""
    if orientation in (2, 5, 7):
        image = cv2.flip(image, 1)
    elif orientation == 4:
        image = cv2.flip(image, 0)
    turn = _TURNS.get({5: 8, 7: 6}.get(orientation, orientation))
    return image if turn is None else cv2.rotate(image, turn)


def is_jpeg_complete(data: bytes, pixels_at: int) -> bool:
    """Whether a jpeg's pixels end with the marker that ends them, from where they start.

    What follows does not matter: the video of a motion photo, further pictures, padding with zeros. End
    markers of thumbnails before the pixels do not count.
    """
    pixels = np.frombuffer(data, np.uint8, offset=min(pixels_at, len(data)))
    starts = (pixels[:-1] == 0xFF).nonzero()[0]  # 0.07 ms; a regular expression takes 2 ms
    end = 0
    for at in starts[_HAS_LENGTH[pixels[starts + 1]]].tolist():
        if at < end:
            continue  # within a segment between two scans
        if pixels[at + 1] == _EOI:
            return True
        end = at + 2 + int.from_bytes(pixels[at + 2 : at + 4].tobytes(), "big")
    return False


def is_tiff_complete(data: bytes) -> bool:
    """Whether the strips or tiles of a compressed tiff end with something else than zeros.

    OpenCV returns what it could decode, and black rows in place of the rest.
    """
    try:
        with TiffImageFile(io.BytesIO(data)) as image:
            tags = image.tag_v2
    except Exception:  # of a damaged header, or a tiff that only OpenCV reads
        return True
    if tags.get(_COMPRESSION, 1) not in _NEVER_ZERO:
        return True
    parts = [(tags.get(a, ()), tags.get(b, ())) for a, b in _PARTS]
    ends = [
        (start, start + count)
        for each in parts
        for start, count in zip(*each, strict=False)
        if count
    ]
    return all(any(data[max(start, end - _ZEROS) : end]) for start, end in ends)


def _read_jpeg(file: BinaryIO) -> ImageHeader | None:
    """Reads the segments before the first scan."""
    file.seek(2)
    size, orientation = None, None
    while byte := file.read(1):
        if byte != b"\xff":
            continue  # decoders skip what is between segments
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte[0] == _EOI:
            return None
        if byte[0] in _ALONE:
            continue
        length = int.from_bytes(file.read(2), "big") - 2
        if byte[0] == _SOS:
            at = file.tell() + length
            return None if size is None else ImageHeader(*size, orientation or 1, at)
        if byte[0] in _SIZES:
            size = struct.unpack(">xHH", file.read(5))
            file.seek(length - 5, 1)
        elif byte[0] == _APP1 and orientation is None:
            content = file.read(length)
            orientation = parse_orientation(content) if content.startswith(_EXIF) else None
        else:
            file.seek(length, 1)
    return None


def _read_png(file: BinaryIO) -> ImageHeader:
    """Reads all chunks but the pixels: Exif may follow them."""
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    file.seek(8)
    orientation = 1
    while len(start := file.read(8)) == 8 and start[4:] != b"IEND":
        length = int.from_bytes(start[:4], "big")
        if start[4:] == b"eXIf":
            orientation = parse_orientation(file.read(length))
            break
        file.seek(length + 4, 1)  # and its checksum
    return ImageHeader(height, width, orientation)
