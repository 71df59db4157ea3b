"""Image folders as an index, and the centre crop."""

import cv2
import numpy as np
import pytest

from detector.data import CentreCrop, load_data_yaml, read_split
from detector.errors import UserError
from detector.structures import Sample


@pytest.fixture
def pets(tmp_path):
    for number, (name, shape) in enumerate(
        [("cat/b.png", (8, 12)), ("cat/a.png", (6, 6)), ("dog/deep/er/a.png", (4, 9))]
    ):
        path = tmp_path / "pets" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((*shape, 3), number, np.uint8))
    (tmp_path / "pets.yaml").write_text("format: folders\nroot: pets\n")
    return tmp_path / "pets.yaml"


def test_every_image_is_one_box_of_its_folders_class(pets):
    index = read_split(*load_data_yaml(str(pets)), "train")
    assert index.names == ("cat", "dog")
    assert index.files.tolist() == ["train/cat/a.png", "train/cat/b.png", "train/dog/deep/er/a.png"]
    assert index.labels.tolist() == [0, 0, 1]
    assert index.boxes_xyxy.tolist() == [[0, 0, 6, 6], [0, 0, 12, 8], [0, 0, 9, 4]]


def test_names_choose_and_order_the_classes(pets):
    pets.write_text("format: folders\nroot: pets\nnames: [dog]\n")
    index = read_split(*load_data_yaml(str(pets)), "train")
    assert (index.names, index.labels.tolist()) == (("dog",), [0])
    pets.write_text("format: folders\nroot: pets\nnames: [dog, cow]\n")
    with pytest.raises(UserError, match="no folder of the class cow"):
        read_split(*load_data_yaml(str(pets)), "train")


def test_an_unreadable_image_is_named_and_kept(pets):
    (pets.parent / "pets/train/dog/0.png").write_bytes(b"no image")
    index = read_split(*load_data_yaml(str(pets)), "train")
    assert [(each.kind, each.where) for each in index.findings] == [
        ("unreadable image", "train/dog/0.png")
    ]
    assert len(index) == 4


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (32, 32), (20, 33)])
def test_centre_crop(shape):
    """A ramp from the left: the crop's centre is the image's."""
    ramp = np.linspace(0, 255, shape[1])[None, :, None].repeat(shape[0], 0).repeat(3, 2)
    box = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    sample = Sample(ramp.astype(np.uint8), box, np.zeros(1, np.int64), 1, box[:0])
    placed, transform = CentreCrop(32).place(sample, (32, 32))
    assert placed.image.shape == (32, 32, 3)
    assert abs(placed.image.mean() - 127.5) < 3.5  # half a pixel of an odd width, and rounding
    assert placed.boxes_xyxy.tolist() == [[0, 0, 32, 32]]
    centre = (np.array([shape[1], shape[0]]) / 2) * [transform.scale_x, transform.scale_y]
    assert abs(centre[0] + transform.left - 16) <= 0.5
    assert abs(centre[1] + transform.top - 16) <= 0.5
