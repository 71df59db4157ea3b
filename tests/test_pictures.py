import numpy as np
import torch

from detector.build import build_data
from detector.config import load_config
from detector.evaluation import Found
from detector.pictures import TITLE, true_and_found
from detector.structures import Detections


def test_true_boxes_left_found_boxes_right(digits_yaml):
    config = load_config("yolov4-pacsp-n-mish", [f"data.dataset={digits_yaml}", "data.size=96"])
    data = build_data(config)
    index = data.val.reader.index
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    boxes = torch.tensor([[20.0, 30.0, 200.0, 220.0], [5.0, 5.0, 50.0, 50.0]])
    some = Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([3, 4]))
    number = int(np.diff(index.starts).argmax())
    image = int(index.image_ids[number])

    def halves(detections):
        sheet = true_and_found(data.val, [Found(image, detections)], data.names)
        assert sheet.shape == (400 + TITLE, 800, 3)
        return sheet[:, :400], sheet[:, 400:]

    left, right = halves(none)
    other_left, other_right = halves(some)
    assert (left == other_left).all()
    assert (left[TITLE:] != right[TITLE:]).any()  # this image has objects
    assert (right != other_right).any()
    only_sure = Detections(boxes[:1], torch.tensor([0.9]), torch.tensor([3]))
    assert (halves(only_sure)[1] == other_right).all()  # a low score is not shown

    many = [Found(int(i), none) for i in index.image_ids]
    assert true_and_found(data.val, many, data.names).shape == (3 * 400 + TITLE, 1600, 3)
    assert true_and_found(data.val, many[:1] * 20, data.names).shape == (1600 + TITLE, 1600, 3)
    assert true_and_found(data.val, [], data.names).shape[2] == 3
