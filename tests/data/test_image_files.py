"""Image files as cameras, phones and broken downloads leave them: read right, or named in one line."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.data import UnreadableImage, read_image
from detector.data.store.image_sizes import image_size

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8), (60, 40))
UPRIGHT = {1: SMOOTH, 6: np.rot90(SMOOTH, -1)}
RAMP = np.linspace(0, 1, 2400).reshape(40, 60)


def encode(form, **options):
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, form, **options)
    return buffer.getvalue()


def write(tmp_path, content, name="x.jpg"):
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def exif_block(order, kind, value, tag=0x0112):
    """A block of Exif with one entry, in the byte order "<" or ">"."""
    code = {1: "B", 3: "H", 4: "I", 9: "i"}[kind]
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entry = struct.pack(f"{order}HHI{code}", tag, kind, 1, value).ljust(12, b"\0")
    return magic + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
NO_ORIENTATION = exif_block("<", 3, 9, tag=0x0128)


def insert_chunk(png, name, content, *, last):
    """A png with one more chunk, before its pixels or behind them."""
    chunk = struct.pack(">I", len(content)) + name + content
    chunk += struct.pack(">I", zlib.crc32(name + content))
    at = len(png) - 12 if last else 33
    return png[:at] + chunk + png[at:]


def jpeg_with(*blocks):
    """A jpeg with APP1 segments."""
    jpeg = encode("JPEG", quality=95)
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(b) + 2) + b for b in blocks)
    return jpeg[:2] + segments + jpeg[2:]


EXIF, XMP_SEGMENT = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0" + XMP
ORIENTED = {
    "xmp alone": (jpeg_with(XMP_SEGMENT), 1),
    "xmp beside exif without": (jpeg_with(EXIF + NO_ORIENTATION, XMP_SEGMENT), 1),
    "xmp against exif": (jpeg_with(XMP_SEGMENT, EXIF + exif_block("<", 3, 1)), 1),
    "exif behind xmp": (jpeg_with(XMP_SEGMENT, EXIF + exif_block(">", 3, 6)), 6),
    **{
        f"{order}{kind}": (jpeg_with(EXIF + exif_block(order, kind, 6)), 6)
        for order in "<>"
        for kind in (1, 3, 4, 9)
    },
    "unknown value": (jpeg_with(EXIF + exif_block("<", 3, 9)), 1),
    "cut exif": (jpeg_with(EXIF + exif_block("<", 3, 6)[:12]), 1),
    "no exif at all": (jpeg_with(EXIF + b"junk"), 1),
    "png": (insert_chunk(encode("PNG"), b"eXIf", exif_block(">", 4, 6), last=False), 6),
    "png, behind": (insert_chunk(encode("PNG"), b"eXIf", exif_block(">", 4, 6), last=True), 6),
    "png, xmp": (
        insert_chunk(encode("PNG"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, last=False),
        1,
    ),
    "webp": (encode("WEBP", lossless=True, exif=exif_block(">", 4, 6)), 6),
    "webp, xmp": (encode("WEBP", lossless=True, xmp=XMP), 1),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_one_reader_decides_the_orientation_of_size_and_pixels(tmp_path, name):
    content, orientation = ORIENTED[name]
    path = write(tmp_path, content)
    image = read_image(path)
    assert image_size(path) == image.shape[:2] == UPRIGHT[orientation].shape[:2]
    assert np.abs(image.astype(int) - UPRIGHT[orientation]).mean() < 3


THUMBNAIL = jpeg_with(EXIF + NO_ORIENTATION + encode("JPEG", quality=20))
JPEGS = {
    "baseline": encode("JPEG"),
    "progressive": encode("JPEG", progressive=True),
    "grey": encode("JPEG", subsampling=0),
    "with a thumbnail": THUMBNAIL,
}


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 6000, b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40, encode("JPEG")[:300], b"\r\n"],
    ids=["zeros", "video", "cut second picture", "newline"],
)
@pytest.mark.parametrize("kind", JPEGS)
def test_what_follows_a_jpeg_does_not_matter(tmp_path, kind, tail):
    whole = read_image(write(tmp_path, JPEGS[kind]))
    assert np.array_equal(read_image(write(tmp_path, JPEGS[kind] + tail)), whole)


@pytest.mark.parametrize("fill", [0, 9000], ids=["cut", "cut and filled with zeros"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.995])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_cut_jpeg_is_truncated(tmp_path, kind, share, fill):
    content = JPEGS[kind]
    path = write(tmp_path, content[: int(len(content) * share)] + bytes(fill))
    with pytest.raises(UnreadableImage, match=r"x\.jpg: the jpeg is truncated"):
        read_image(path)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_may_be_followed_by_zeros_but_not_cut(tmp_path, form):
    content = encode(form)
    whole = read_image(write(tmp_path, content))
    assert np.array_equal(read_image(write(tmp_path, content + bytes(9000))), whole)
    with pytest.raises(UnreadableImage, match=r"x\.jpg: not a decodable image"):
        read_image(write(tmp_path, content[: len(content) // 2]))


CUT = {
    "png": encode("PNG"),
    "webp": encode("WEBP", quality=80),
    "webp, lossless": encode("WEBP", lossless=True),
    "bmp": encode("BMP"),
    **{
        f"tiff, {name}": encode("TIFF", compression=name)
        for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    },
}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_of_another_format_is_named(tmp_path, name, share):
    content = CUT[name]
    path = write(tmp_path, content[: int(len(content) * share)], "x.img")
    with pytest.raises(UnreadableImage, match=r"x\.img: "):
        read_image(path)
    if name == "png" and share < 0.99:  # its checksums tell zeros in its pixels, too
        with pytest.raises(UnreadableImage, match=r"x\.img: "):
            read_image(write(tmp_path, content[: int(len(content) * share)] + bytes(5000), "x.img"))


def move_directory_first(content):
    """A tiff whose strips follow its directory, as some programs write it."""
    with Image.open(io.BytesIO(content)) as image:
        tags = dict(image.tag_v2)
    strips = [content[a : a + n] for a, n in zip(tags[273], tags[279], strict=True)]
    assert len(strips) == 1
    entries = [(256, 60), (257, 40), (258, 0), (259, tags[259]), (262, 2), (273, 0), (277, 3)]
    entries += [(278, 40), (279, len(strips[0])), (317, tags.get(317, 1))]
    size = 8 + 2 + 12 * len(entries) + 4
    packed = b"".join(
        struct.pack("<HHII", 258, 3, 3, size)
        if tag == 258
        else struct.pack("<HHII", tag, 4, 1, size + 6 if tag == 273 else value)
        for tag, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    return head + struct.pack("<HHH", 8, 8, 8) + strips[0]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_compressed_tiff_that_ends_with_zeros_is_truncated(tmp_path, name, share):
    content = move_directory_first(encode("TIFF", compression=name))
    assert np.array_equal(read_image(write(tmp_path, content, "x.tif")), SMOOTH)
    kept = int(len(content) * share)
    path = write(tmp_path, content[:kept] + bytes(len(content) - kept), "x.tif")
    with pytest.raises(UnreadableImage, match=r"x\.tif: the tiff is truncated"):
        read_image(path)


def claim_size(form, width, height):
    """An image file whose header says another size."""
    content = bytearray(encode(form))
    if form == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", height, width)
    elif form == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif form == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("side", [40_000, 60_000])
def test_more_pixels_than_can_be_decoded(tmp_path, form, side):
    path = write(tmp_path, claim_size(form, side, side))
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage, match=rf"x\.jpg: too large: it has {side} x {side}"):
            read(path)


def test_a_large_image_needs_no_warning(tmp_path):
    assert image_size(write(tmp_path, claim_size("PNG", 20_000, 10_000))) == (10_000, 20_000)


def make_fifo(path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_fifo, "it is a device or a pipe, not an image file"),
        (os.mkdir, "it is a folder, not an image file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device or a pipe"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
    ids=["FIFO", "folder", "device", "dead link", "circular link"],
)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make, message):
    make(tmp_path / "x.jpg")
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage, match=rf"x\.jpg: {message}"):
            read(str(tmp_path / "x.jpg"))


def make_tiff(samples, sample_format):
    """An uncompressed grey tiff of any sample type."""
    data = samples.tobytes()
    tags = [(256, 60), (257, 40), (258, samples.itemsize * 8), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, 40), (279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "bits"), [("u2", b) for b in (8, 10, 12, 14, 16)] + [("i2", 12)])
def test_depths_below_16_bits_are_not_read_as_black(tmp_path, kind, bits):
    samples = np.round(RAMP * (2**bits - 1)).astype(kind)
    image = read_image(write(tmp_path, make_tiff(samples, 2 if kind == "i2" else 1), "x.tif"))
    assert (image.min(), image.max()) == (0, 255)
    assert np.abs(image[..., 0] - RAMP * 255).max() <= 1
    if kind == "u2":
        assert cv2.imwrite(str(tmp_path / "x.png"), samples)
        assert np.array_equal(read_image(str(tmp_path / "x.png")), image)


@pytest.mark.parametrize(
    ("kind", "sample_format", "message"),
    [
        ("i2", 2, "its samples are int16, from -1000 to 3095; expected 8 or 16 bits without sign"),
        ("f4", 3, "not a decodable image (a tiff of Pillow's mode F); expected 8 or 16 bits"),
    ],
)
def test_samples_without_a_defined_white_are_named(tmp_path, kind, sample_format, message):
    samples = np.round(RAMP * 4095 - 1000).astype(kind)
    path = write(tmp_path, make_tiff(samples, sample_format), "x.tif")
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert f"x.tif: {message}" in str(caught.value)
