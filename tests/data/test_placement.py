import numpy as np
import pytest
import torch

from detector.data import Darknet, Letterbox, PyTorchYOLOv4, Rectangular
from detector.structures import Sample


def sample_of(height, width, boxes=((0, 0, 5, 7),)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.full((height, width, 3), 200, np.uint8)
    none = np.zeros((0, 4), np.float32)
    return Sample(image, boxes, np.zeros(len(boxes), np.int64), 1, none)


@pytest.mark.parametrize(("size", "canvas"), [(640, 704), (672, 704), (736, 768), (608, 640)])
def test_the_published_canvas_is_half_a_cell_wider(size, canvas):
    _, shapes = PyTorchYOLOv4(size).plan(np.array([[480, 640], [640, 480]]), 2)
    assert shapes == [(canvas, canvas)] * 2


def test_batches_are_sorted_by_aspect_ratio():
    sizes = np.array([[640, 480], [300, 640], [480, 640], [100, 100], [640, 320]])
    batches, shapes = PyTorchYOLOv4(640).plan(sizes, 2)
    assert batches == [[1, 2], [3, 0], [4]]
    assert shapes[1] == shapes[2] == (512, 704)  # 0.75 * 640 / 64 + 0.5 -> 8 cells
    assert shapes[3] == shapes[0] == (704, 704)  # a square and a tall one
    assert shapes[4] == (704, 384)  # 0.5 * 640 / 64 + 0.5 -> 6 cells


@pytest.mark.parametrize(
    "protocol",
    [Letterbox(96), Darknet(64, 96), PyTorchYOLOv4(96), Rectangular(96, 32)],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize(("height", "width"), [(37, 53), (201, 77), (96, 96), (640, 427)])
def test_placing_and_mapping_back_round_trips(protocol, height, width):
    boxes = [[0, 0, width, height], [3, 5, width / 2, height / 3]]
    _, (shape,) = protocol.plan(np.array([[height, width]]), 1)
    placed, way = protocol.place(sample_of(height, width, boxes), shape)
    assert placed.image.shape == (*shape, 3)
    back = way.to_original(torch.from_numpy(placed.boxes_xyxy))
    np.testing.assert_allclose(back.numpy(), boxes, atol=1e-3)


def test_darknet_stretches_without_grey():
    placed, _ = Darknet(64, 96).place(sample_of(10, 10), (64, 96))
    assert (placed.image == 200).all()


def test_pytorch_yolov4_truncates_sizes_and_centres():
    placed, way = PyTorchYOLOv4(100).place(sample_of(333, 500), (128, 128))
    rows = (placed.image[:, 64, 0] == 200).nonzero()[0]
    assert len(rows) == 66  # 333 * 0.2 = 66.6, truncated
    assert (way.top, way.left) == (31, 14)
    assert rows[0] == 31


def test_no_images():
    assert PyTorchYOLOv4(64).plan(np.zeros((0, 2), np.int64), 4) == ([], [])


def test_rectangular_canvases_hold_their_batch_with_little_grey():
    protocol = Rectangular(640, 32)
    sizes = np.array([[640, 480], [300, 640], [480, 640], [100, 100], [640, 320]])
    batches, shapes = protocol.plan(sizes, 2)
    assert sorted(n for batch in batches for n in batch) == [0, 1, 2, 3, 4]
    assert shapes == [(640, 640), (480, 640), (480, 640), (640, 640), (640, 320)]
    for (height, width), shape in zip(sizes.tolist(), shapes, strict=True):
        _, way = protocol.place(sample_of(height, width), shape)
        assert way.scale_x == pytest.approx(640 / max(height, width), rel=1e-2)
    assert protocol.plan(np.zeros((0, 2), np.int64), 4) == ([], [])
