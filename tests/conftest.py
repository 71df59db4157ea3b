import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from detector.data.digits.generate import make_digits


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def real_figures() -> None:
    """For tests that look at figures: they are drawn, not left blank."""


@pytest.fixture(autouse=True)
def _blank_figures(request, monkeypatch):
    """Figures are made but not drawn: that takes as long as a small training run."""
    if "real_figures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", save_blank)


def save_blank(figure: Figure, path: Path, **_: object) -> None:
    """Stands in for `Figure.savefig`."""
    Path(path).write_bytes(cv2.imencode(".png", np.full((1, 1, 3), 255, np.uint8))[1].tobytes())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory) -> Path:
    """A very small digits data set: 12 + 5 images; not to be written to."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    make_digits(root, 12, 5)
    return root


@pytest.fixture
def digits_yaml(digits_root, tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(f"format: coco\nroot: {digits_root}\nmirrors: false\n")
    return path


@pytest.fixture
def coco_root(tmp_path) -> Path:
    """A hand-made COCO folder: category ids 7 and 3, a crowd, an image without objects, odd boxes."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    images = [
        {"id": 10, "file_name": "a.jpg", "width": 100, "height": 60},
        {"id": 5, "file_name": "b.jpg", "width": 40, "height": 80},
        {"id": 77, "file_name": "empty.jpg", "width": 64, "height": 64},
    ]
    boxes = [
        (1, 5, 3, [4, 5, 20, 30], 0),
        (2, 10, 7, [0, 0, 50, 20], 0),
        (3, 10, 3, [10, 10, 60, 40], 1),  # crowd
        (4, 10, 3, [90, 50, 30, 30], 0),  # partly outside: clipped to 10 x 10
        (5, 10, 3, [5, 5, 0, 10], 0),  # no size
        (6, 5, 7, [200, 200, 5, 5], 0),  # wholly outside
    ]
    tree = {
        "images": images,
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for i, image, category, box, crowd in boxes
        ],
    }
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = root / f"{split}2017"
        folder.mkdir()
        for entry in images:
            pixels = noise.integers(0, 255, (entry["height"], entry["width"], 3), np.uint8)
            cv2.imwrite(str(folder / entry["file_name"]), pixels)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(tree))
    return root
