"""Mosaic: four or nine images on one canvas.

Source for four: Bochkovskiy et al., "YOLOv4", 2020, section 3.3. With nine, each tile is a third of the
canvas wide and high, and objects are two thirds as large as with four: for data sets of small objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.data.augment.geometry import GREY, Region, Size, height_and_width, resize_to_fit
from detector.structures import Sample

# The cell of each sample, (row, column) in a grid of three by three. With nine tiles the first is in
# the centre; with four, the middle row and column have zero size.
_CELLS = {
    2: ((0, 0), (0, 2), (2, 0), (2, 2)),
    3: ((1, 1), (0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)),
}


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The layout of a mosaic.

    Attributes:
        x, y: the point of the 2W x 2H canvas where four tiles meet, or the centre of the middle one of
            nine; pixels.
        grid: tiles per row, 2 or 3.
    """

    x: int
    y: int
    grid: int = 2

    @classmethod
    def draw(cls, rng: np.random.Generator, *, size: Size, grid: int = 2) -> "Mosaic":
        """Draws x in [W/2, 3W/2] and y in [H/2, 3H/2] uniformly; (H, W) = size."""
        height, width = height_and_width(size)
        x = rng.integers(width // 2, width + width // 2, endpoint=True)
        y = rng.integers(height // 2, height + height // 2, endpoint=True)
        return cls(int(x), int(y), grid)

    def apply(self, samples: Sequence[Sample], size: Size, visible: Region | None = None) -> Sample:
        """Places the tiles on a canvas of 2H x 2W pixels; (H, W) = size.

        Each image is scaled to fit into a half (a third) of the canvas and placed against the borders
        where tiles meet, which run along the middle tile if there are nine; it is cropped to its cell.
        A box is kept if any of it is visible: the affine transform that follows drops those that are
        barely visible. Pixels outside `visible` are undefined.
        """
        assert len(samples) == self.grid**2, f"{self.grid**2} tiles, not {len(samples)}"
        height, width = (2 * length for length in height_and_width(size))
        cell = height // self.grid, width // self.grid
        canvas = np.empty((height, width, 3), np.uint8)
        view_x1, view_y1, view_x2, view_y2 = visible or (0, 0, width, height)
        canvas[view_y1:view_y2, view_x1:view_x2] = GREY
        tiles = [resize_to_fit(sample, cell) for sample in samples]
        middle_height, middle_width = tiles[0].image.shape[:2] if self.grid == 3 else (0, 0)
        columns = _cell_borders(self.x, middle_width, width)
        rows = _cell_borders(self.y, middle_height, height)
        cells: list[int] = []  # of each tile: its origin, and the corners of its visible part
        for (row, column), tile in zip(_CELLS[self.grid], tiles, strict=True):
            tile_height, tile_width = tile.image.shape[:2]
            left = _tile_start(columns, column, tile_width)
            top = _tile_start(rows, row, tile_height)
            x1, x2 = max(left, columns[column]), min(left + tile_width, columns[column + 1])
            y1, y2 = max(top, rows[row]), min(top + tile_height, rows[row + 1])
            cells += (left, top, x1, y1, x2, y2)
            x1, x2 = max(x1, view_x1), min(x2, view_x2)
            y1, y2 = max(y1, view_y1), min(y2, view_y2)
            if x1 < x2 and y1 < y2:
                canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]
        placed = np.array(cells, np.float32).reshape(-1, 3, 2)
        boxes, kept = _clip_to_cells([tile.boxes_xyxy for tile in tiles], placed)
        ignore, _ = _clip_to_cells([tile.ignore_xyxy for tile in tiles], placed)
        labels = np.concatenate([tile.labels for tile in tiles])[kept]
        return Sample(canvas, boxes, labels, samples[0].image_id, ignore)


def _clip_to_cells(parts: list[np.ndarray], placed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves the boxes of all tiles to the canvas and clips them to the visible part of their tile.

    Args:
        parts: [n_i, 4], pixels of each tile.
        placed: float32 [tiles, 3, 2], (x, y) of each tile's origin and of the top left and bottom right
        corners of its visible part.

    Returns:
        The remaining boxes [m, 4], pixels of the canvas; and a mask of them, bool [n].
    """
    boxes = np.concatenate(parts)
    if not len(boxes):
        return boxes, np.zeros(0, bool)
    of_boxes = placed.repeat([len(part) for part in parts], axis=0)  # [n, 3, 2]
    corners = boxes.reshape(-1, 2, 2) + of_boxes[:, 0:1]
    moved = np.minimum(np.maximum(corners, of_boxes[:, 1:2]), of_boxes[:, 2:3]).reshape(-1, 4)
    x1, y1, x2, y2 = moved.T
    kept = (x2 > x1) & (y2 > y1)
    return moved[kept], kept


def _cell_borders(meeting: int, middle: int, length: int) -> tuple[int, int, int, int]:
    """Borders of the three cells along an axis; with four tiles the middle one has zero size."""
    first = meeting - middle // 2
    return 0, first, first + middle, length


def _tile_start(lines: tuple[int, int, int, int], cell: int, length: int) -> int:
    """Where a tile of this length starts: against the middle cell, or centred in it."""
    if cell == 1:
        return (lines[1] + lines[2] - length) // 2
    return lines[1] - length if cell == 0 else lines[2]
