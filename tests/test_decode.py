import pytest
import torch

from detector.decode import decode, decode_cells


def test_raw_zero_is_the_middle_of_the_cell_and_the_anchor():
    box = decode_cells(torch.zeros(4), torch.tensor([3.0, 5.0]), torch.tensor([12.0, 16.0]), 8)
    assert box.tolist() == [28.0, 44.0, 12.0, 16.0]


def test_range_of_a_cell():
    low, high = (
        decode_cells(torch.full((4,), v), torch.tensor([3.0, 5.0]), torch.tensor([12.0, 16.0]), 8)
        for v in (-50.0, 50.0)
    )
    assert low.tolist() == pytest.approx([20.0, 36.0, 0.0, 0.0])  # half a cell before it, no size
    assert high.tolist() == [36.0, 52.0, 48.0, 64.0]  # half a cell behind it, four anchors


def test_order_is_level_anchor_row_column():
    anchors = torch.tensor([[[8.0, 8.0], [16.0, 16.0]], [[32.0, 32.0], [64.0, 64.0]]])
    raw = [torch.zeros(1, 2, 4, 6, 8), torch.zeros(1, 2, 2, 3, 8)]
    raw[0][0, 1, 2, 3, 4] = 7.0
    boxes, objectness, classes = decode(raw, anchors, (8, 16))
    assert boxes.shape == (1, 2 * 4 * 6 + 2 * 2 * 3, 4)
    assert classes.shape == (1, 60, 3)
    best = int(objectness[0].argmax())
    assert best == 1 * 24 + 2 * 6 + 3
    assert boxes[0, best].tolist() == [28.0, 20.0, 16.0, 16.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_are_float32_whatever_the_model_ran_in(dtype):
    raw = [torch.zeros(1, 1, 1, 200, 6, dtype=dtype)]
    boxes, _, _ = decode(raw, torch.tensor([[[8.0, 8.0]]]), (8,))
    assert boxes.dtype == torch.float32
    assert boxes[0, -1, 0] == 199.5 * 8
