import math

import pytest
import torch

from detector.losses import assign

ANCHORS = torch.tensor(
    [
        [[12, 16], [19, 36], [40, 28]],
        [[36, 75], [76, 55], [72, 146]],
        [[142, 110], [192, 243], [459, 401]],
    ],
    dtype=torch.float32,
)
STRIDES = (8, 16, 32)


THREE_CELLS = (0.5, 0.5, 0.5)  # the reach of the (2s)^2 decoder on each level


def reference_assign(boxes, image_index, shapes, ratio=4.0, reach=0.5):
    """The definition in nested loops: sets of (image, anchor, row, column, box)."""
    levels = []
    for anchors, stride, (rows, columns) in zip(ANCHORS.tolist(), STRIDES, shapes, strict=True):
        matches = set()
        for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            x, y = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
            for a, (width, height) in enumerate(anchors):
                sides = ((x2 - x1) / width, (y2 - y1) / height)
                if any(max(r, 1 / r) >= ratio for r in sides):
                    continue
                column, row = math.floor(x), math.floor(y)
                cells = [(row, column)]
                if x % 1 < reach and x > 1:
                    cells.append((row, column - 1))
                if y % 1 < reach and y > 1:
                    cells.append((row - 1, column))
                if x % 1 > 1 - reach and x < columns - 1:
                    cells.append((row, column + 1))
                if y % 1 > 1 - reach and y < rows - 1:
                    cells.append((row + 1, column))
                for r, c in cells:
                    r, c = min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)
                    matches.add((int(image_index[number]), a, r, c, number))
        levels.append(matches)
    return levels


def as_sets(matches):
    return [
        set(
            zip(
                *(t.tolist() for t in (m.image, m.anchor, m.row, m.column, m.box)),
                strict=True,
            )
        )
        for m in matches
    ]


def random_case(generator, quarter_pixels):
    n = int(torch.randint(0, 12, (), generator=generator))
    shapes = [(int(h), int(h) + 2) for h in (12, 6, 3)]
    limit = torch.tensor([14 * 8, 12 * 8])
    centre = torch.rand(n, 2, generator=generator) * limit
    size = torch.exp(torch.rand(n, 2, generator=generator) * 6)  # 1 .. 400 px
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    if quarter_pixels:  # centres on borders and middles of cells
        boxes = (boxes / 4).round() * 4
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 4)
    return boxes, torch.randint(0, 3, (n,), generator=generator), shapes


@pytest.mark.parametrize("quarter_pixels", [False, True])
def test_equals_the_reference_implementation(quarter_pixels):
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        boxes, image_index, shapes = random_case(generator, quarter_pixels)
        fast = assign(
            boxes.double(), image_index, ANCHORS.double(), STRIDES, shapes, 4.0, THREE_CELLS
        )
        assert as_sets(fast) == reference_assign(boxes.double(), image_index, shapes)


def test_a_batch_of_two_equals_each_alone():
    generator = torch.Generator().manual_seed(2)
    boxes, _, shapes = random_case(generator, False)
    owner = torch.arange(len(boxes)) % 2
    together = as_sets(assign(boxes, owner, ANCHORS, STRIDES, shapes, 4.0, THREE_CELLS))
    for image in (0, 1):
        mine = (owner == image).nonzero()[:, 0]
        alone = as_sets(
            assign(boxes[mine], owner[mine], ANCHORS, STRIDES, shapes, 4.0, THREE_CELLS)
        )
        for level, joined in zip(alone, together, strict=True):
            renumbered = {(i, a, r, c, int(mine[b])) for i, a, r, c, b in level}
            assert renumbered == {m for m in joined if m[0] == image}


def test_at_most_three_cells_and_all_inside():
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        boxes, image_index, shapes = random_case(generator, True)
        for m, (rows, columns) in zip(
            assign(boxes, image_index, ANCHORS, STRIDES, shapes, 4.0, THREE_CELLS),
            shapes,
            strict=True,
        ):
            assert ((m.row >= 0) & (m.row < rows)).all()
            assert ((m.column >= 0) & (m.column < columns)).all()
            pairs = torch.stack([m.anchor, m.box], 1)
            if len(pairs):
                assert pairs.unique(dim=0, return_counts=True)[1].max() <= 3


def test_no_boxes():
    none = torch.zeros(0, 4)
    shapes = [(4, 4), (2, 2), (1, 1)]
    for m in assign(none, torch.zeros(0).long(), ANCHORS, STRIDES, shapes, 4.0, THREE_CELLS):
        assert m.boxes_cxcywh.shape == (0, 4)
        assert m.row.dtype == torch.int64


@pytest.mark.parametrize("reach", [0.0, 0.025, 0.1])
def test_a_decoder_with_less_reach_gets_fewer_cells(reach):
    generator = torch.Generator().manual_seed(4)
    for _ in range(100):
        boxes, image_index, shapes = random_case(generator, False)
        fast = assign(
            boxes.double(), image_index, ANCHORS.double(), STRIDES, shapes, 4.0, [reach] * 3
        )
        assert as_sets(fast) == reference_assign(boxes.double(), image_index, shapes, reach=reach)
        if reach == 0:
            for m in fast:
                pairs = torch.stack([m.anchor, m.box], 1)
                assert len(pairs.unique(dim=0)) == len(pairs), "the own cell alone"
