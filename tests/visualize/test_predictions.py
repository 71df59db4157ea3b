import numpy as np
import torch

from detector.build import build_data, draw_detections
from detector.config import load_config
from detector.structures import Detections, ImageDetections
from detector.visualize.predictions import TITLE_HEIGHT


def test_ground_truth_left_and_detections_right(digits_yaml):
    config = load_config("yolov4-pacsp-n-mish", [f"data.dataset={digits_yaml}", "data.size=96"])
    data = build_data(config)
    index = data.val.reader.index
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    boxes = torch.tensor([[20.0, 30.0, 200.0, 220.0], [5.0, 5.0, 50.0, 50.0]])
    some = Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([3, 4]))
    number = int(np.diff(index.starts).argmax())
    image = int(index.image_ids[number])

    def halves(detections):
        sheet = draw_detections(data.val, [ImageDetections(image, detections)])
        assert sheet.shape == (400 + TITLE_HEIGHT, 800, 3)
        return sheet[:, :400], sheet[:, 400:]

    left, right = halves(none)
    other_left, other_right = halves(some)
    assert (left == other_left).all()
    assert (left[TITLE_HEIGHT:] != right[TITLE_HEIGHT:]).any()  # this image has objects
    assert (right != other_right).any()
    only_sure = Detections(boxes[:1], torch.tensor([0.9]), torch.tensor([3]))
    assert (halves(only_sure)[1] == other_right).all()  # a low score is not shown

    many = [ImageDetections(int(i), none) for i in index.image_ids]
    assert draw_detections(data.val, many).shape == (3 * 400 + TITLE_HEIGHT, 1600, 3)
    assert draw_detections(data.val, many[:1] * 20).shape == (1600 + TITLE_HEIGHT, 1600, 3)
    assert draw_detections(data.val, []).shape[2] == 3
