import pytest
import torch

from detector.decode import Decoder, decode

CELL = (torch.tensor([3.0, 5.0]), torch.tensor([12.0, 16.0]), 8.0)  # cell, anchor, stride


def test_raw_zero_is_the_middle_of_the_cell_and_the_anchor():
    box = Decoder().decode_cells(0, torch.zeros(4), *CELL)
    assert box.tolist() == [28.0, 44.0, 12.0, 16.0]


def test_range_of_a_cell():
    low, high = (Decoder().decode_cells(0, torch.full((4,), v), *CELL) for v in (-50.0, 50.0))
    assert low.tolist() == pytest.approx([20.0, 36.0, 0.0, 0.0])  # half a cell before it, no size
    assert high.tolist() == [36.0, 52.0, 48.0, 64.0]  # half a cell behind it, four anchors


@pytest.mark.parametrize("k", [1.0, 1.05, 1.2, 2.0])
def test_darknets_decoders(k):
    """Against the formulas of the three generations, written out."""
    raw = torch.tensor([0.7, -1.3, 0.4, -0.6])
    s = raw.sigmoid()
    x, y = ((k * s[i] - (k - 1) / 2 + cell) * 8 for i, cell in ((0, 3), (1, 5)))
    box = Decoder("exp", (k,)).decode_cells(0, raw, *CELL)
    torch.testing.assert_close(box, torch.stack([x, y, raw[2].exp() * 12, raw[3].exp() * 16]))
    box = Decoder("sigmoid", (k,)).decode_cells(0, raw, *CELL)
    torch.testing.assert_close(box, torch.stack([x, y, 4 * s[2] ** 2 * 12, 4 * s[3] ** 2 * 16]))


def test_a_scale_for_each_level():
    decoder = Decoder("exp", (1.2, 1.1, 1.05))
    assert [decoder.reach(level) for level in range(3)] == pytest.approx([0.1, 0.05, 0.025])
    assert Decoder().reach(2) == 0.5
    far = torch.tensor([50.0, -50.0, 0.0, 0.0])
    x, y = decoder.decode_cells(0, far, *CELL)[:2].tolist()
    assert (x, y) == pytest.approx(((3 + 1 + 0.1) * 8, (5 - 0.1) * 8))


def test_exp_stays_finite():
    box = Decoder("exp", (1.0,)).decode_cells(0, torch.full((4,), 1e4), *CELL)
    assert box.isfinite().all()


def test_a_candidate_lies_at_its_level_anchor_row_and_column():
    anchors = torch.tensor([[[8.0, 8.0], [16.0, 16.0]], [[32.0, 32.0], [64.0, 64.0]]])
    raw = [torch.full((2, 2, 4, 6, 8), -9.0), torch.full((2, 2, 2, 3, 8), -9.0)]
    for cell, classes in ((raw[0][1, 1, 2, 3], [-9, 4, -9]), (raw[1][0, 0, 1, 2], [4, -9, 3])):
        cell[:] = torch.tensor([0, 0, 0, 0, 7, *classes])
    candidates = decode(raw, anchors, (8, 16), conf=0.5)
    assert candidates.image.tolist() == [0, 0, 1]
    assert candidates.labels.tolist() == [0, 2, 1]
    assert candidates.boxes_xyxy.tolist() == [[24.0, 8, 56, 40]] * 2 + [[20.0, 12, 36, 28]]
    expected = torch.tensor([7.0, 7, 7]).sigmoid() * torch.tensor([4.0, 3, 4]).sigmoid()
    assert torch.allclose(candidates.scores, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_are_float32_whatever_the_model_ran_in(dtype):
    raw = [torch.zeros(1, 1, 1, 200, 6, dtype=dtype)]
    boxes = decode(raw, torch.tensor([[[8.0, 8.0]]]), (8,), conf=0.1).boxes_xyxy
    assert boxes.dtype == torch.float32
    assert boxes[-1, 0] == 199.5 * 8 - 4
