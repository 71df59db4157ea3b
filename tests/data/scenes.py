"""Pictures for tests."""

import cv2
import numpy as np


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A picture with coarse and fine structure, uint8 [H, W, 3]; each seed gives another one."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (4, 9, 30):
        coarse = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * image, 0, 255).astype(np.uint8)
