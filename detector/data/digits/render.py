"""Stickers for the `digits` data set: 8 x 8 handwritten digits, enlarged, rotated, with a dark edge.

Only integer arithmetic (numpy) and exact filters, so that the same versions give the same bytes on
every machine.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

_EDGE_COLOUR = (16, 16, 26)

# Fixed-point rendering: 12 bits of ink, 16 bits of coordinates, 8 bits of interpolation.
_UP = 16  # samples per cell of the enlarged glyph
_CELLS = 10  # 8 cells and one of padding on each side
_INK = 4096
_INK_LOW, _INK_HIGH = 1475, 2376  # soft threshold, .36 to .58 of full ink
_INK_MIDDLE = (_INK_LOW + _INK_HIGH) // 2


@dataclass(frozen=True, slots=True)
class Sticker:
    """A rendered digit, cropped to a margin around what it covers.

    Attributes:
        ink: uint8 [h, w], opacity of the colour.
        edge: uint8 [h, w], opacity of the dark edge below the ink.
        box: (x1, y1, x2, y2) integer px within the patch, the tight box around the pixels that ink
            and edge together cover by a half or more; x2 and y2 are exclusive.
    """

    ink: np.ndarray
    edge: np.ndarray
    box: tuple[int, int, int, int]


def find_covered(ink: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Mask [h, w] of pixels where ink over edge hides at least half of the background (alpha >= 0.5)."""
    through = (255 - ink.astype(np.int32)) * (255 - edge.astype(np.int32))
    return through * 2 <= 255 * 255


def enlarge_glyphs(images: np.ndarray) -> np.ndarray:
    """Cubic (Catmull-Rom) enlargement of 8x8 glyphs, padded by one empty cell.

    Args:
        images: [n, 8, 8], ink in 0..16.

    Returns:
        int32 [n, 160, 160] in 0.._INK. Weights are multiples of 2^-16 and ink is integer, so the
        float64 products are exact in whatever order a BLAS adds them.
    """
    position = (np.arange(_CELLS * _UP) + 0.5) / _UP - 1.5  # in cells of the 8x8 glyph
    distance = np.abs(position[:, None] - np.arange(8))  # [160, 8]
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    field = weights @ images.astype(np.float64) @ weights.T  # [n, 160, 160]
    return np.clip(np.floor(field * (_INK / 16)), 0, _INK).astype(np.int32)


def _sample(glyph: np.ndarray, shape: tuple[int, int], inverse: np.ndarray) -> np.ndarray:
    """Bilinear samples of `glyph` on a centered grid; `inverse` int [2, 2] in 1/65536 samples."""
    height, width = shape
    rows = (2 * np.arange(height, dtype=np.int64) - height + 1)[:, None]  # half steps from centre
    columns = (2 * np.arange(width, dtype=np.int64) - width + 1)[None]
    centre = (_CELLS * _UP - 1) << 15
    last = (_CELLS * _UP - 1) << 16
    x = np.clip(centre + ((inverse[0, 0] * columns + inverse[0, 1] * rows) >> 1), 0, last - 1)
    y = np.clip(centre + ((inverse[1, 0] * columns + inverse[1, 1] * rows) >> 1), 0, last - 1)
    fx, fy = ((x >> 8) & 255).astype(np.int32), ((y >> 8) & 255).astype(np.int32)
    index = (y >> 16) * (_CELLS * _UP) + (x >> 16)
    flat = glyph.ravel()
    top = flat[index] * (256 - fx) + flat[index + 1] * fx
    index += _CELLS * _UP
    bottom = flat[index] * (256 - fx) + flat[index + 1] * fx
    return (top * (256 - fy) + bottom * fy) >> 16


def _make_edge(ink: np.ndarray, radius: int) -> np.ndarray:
    """A dark edge of `radius` px around the ink that fades out over about `radius` px more."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    solid = cv2.dilate(ink, disc)
    side = 2 * ((radius + 1) // 2) + 1
    wide = cv2.boxFilter(solid, cv2.CV_32S, (side, side), normalize=False)
    soft = cv2.boxFilter(wide.astype(np.float64), -1, (side, side), normalize=False)  # exact
    return np.maximum(solid.astype(np.int32) * 7 // 8, (soft // side**4).astype(np.int32))


def render_sticker(glyph: np.ndarray, side: int, degrees: float, aspect: float) -> Sticker:
    """Draws one digit with a box whose longer side is `side` px.

    Args:
        glyph: int32 [160, 160], see `enlarge_glyphs`.
        side: longer side of the box, ink and dark edge together, px.
        degrees: rotation, counter-clockwise.
        aspect: factor by which the width is stretched.

    Returns:
        The sticker; its box may differ from `side` by a pixel if no scale gives it exactly.
    """
    cos, sin = (round(f(math.radians(degrees)) * 65536) / 65536 for f in (math.cos, math.sin))
    rotation = np.array([[cos, sin], [-sin, cos]])
    ys, xs = np.nonzero(glyph >= _INK_MIDDLE)
    centered = np.stack([xs * aspect, ys]) - np.array([[aspect], [1.0]]) * (_CELLS * _UP - 1) / 2
    spread = [float(np.ptp(row[0] * centered[0] + row[1] * centered[1])) for row in rotation]
    radius = edge_radius(side)
    target = side - 2.0 * radius
    sticker = _render(glyph, target / max(spread), rotation, aspect, radius)
    for _ in range(3):
        x1, y1, x2, y2 = sticker.box
        error = side - max(x2 - x1, y2 - y1)
        if error == 0:
            break
        target += 0.6 * error
        sticker = _render(glyph, target / max(spread), rotation, aspect, radius)
    return sticker


def edge_radius(side: int) -> int:
    """Width in px of the dark edge of a sticker with this longer side."""
    return max(1, round(side / 36))


def _render(
    glyph: np.ndarray, scale: float, rotation: np.ndarray, aspect: float, radius: int
) -> Sticker:
    """Renders at `scale` px per sample, supersampled; crops to the box plus the faded edge."""
    factor = 4 if scale < 0.25 else 2
    margin = 2 * radius + 2
    extent = math.ceil(scale * _CELLS * _UP * 1.2) + 2 * margin
    step = np.array([[1 / aspect], [1.0]]) * rotation.T / (scale * factor)  # patch px -> samples
    inverse = np.round(step * 65536).astype(np.int64)
    field = _sample(glyph, (extent * factor, extent * factor), inverse)
    ramp = np.clip(field - _INK_LOW, 0, _INK_HIGH - _INK_LOW) * 255 // (_INK_HIGH - _INK_LOW)
    total = ramp.reshape(extent, factor, extent, factor).sum((1, 3))
    ink = (total // factor**2).astype(np.uint8)
    edge = _make_edge(ink, radius).astype(np.uint8)

    mask = find_covered(ink, edge)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    window = np.s_[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    box = (columns[0] - left, rows[0] - top, columns[-1] + 1 - left, rows[-1] + 1 - top)
    return Sticker(ink[window], edge[window], (int(box[0]), int(box[1]), int(box[2]), int(box[3])))


def paste(image: np.ndarray, sticker: Sticker, x: int, y: int, colour: tuple[int, ...]) -> None:
    """Draws a sticker into an image, its box's corner at (x, y); the faded edge may leave the image.

    Args:
        image: uint8 [H, W, 3], RGB or BGR like `colour`.
        sticker: what to draw.
        x: left border of the box, px.
        y: top border of the box, px.
        colour: of the ink, three values in 0..255.
    """
    left, top = x - sticker.box[0], y - sticker.box[1]
    height, width = sticker.ink.shape
    y1, y2 = max(top, 0), min(top + height, image.shape[0])
    x1, x2 = max(left, 0), min(left + width, image.shape[1])
    part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    pixels = image[y1:y2, x1:x2].astype(np.int32)
    for alpha, paint in ((sticker.edge[part], _EDGE_COLOUR), (sticker.ink[part], colour)):
        a = alpha.astype(np.int32)[..., None]
        pixels = (pixels * (255 - a) + np.array(paint, np.int32) * a + 127) // 255
    image[y1:y2, x1:x2] = pixels
