"""The embedded digits as a data set for classifiers: scikit-learn's 1,797 scans, a folder per class."""

from pathlib import Path

import cv2
import numpy as np

from detector.data.digits.make_once import make_once

WIDTH = 32  # of an image, px; the scans have 8
VAL_EVERY = 5  # each fifth digit of a class is for validation
DONE = "SOURCE.txt"


def ensure_digit_folders(root: Path) -> Path:
    """Makes the data set in `root` unless it exists; returns `root`.

    Raises:
        UserError: the folder contains something else.
    """
    if (root / DONE).is_file():
        return root
    make_once(root, make_digit_folders, is_made=lambda: (root / DONE).is_file())
    return root


def make_digit_folders(root: Path, limit: int | None = None) -> None:
    """Writes train/0 ... val/9 with PNG images of 32 x 32 pixels; at most `limit` of each class."""
    from sklearn.datasets import load_digits  # a second, which every command would pay

    images, targets = load_digits(return_X_y=True)
    for digit in range(10):
        for number, row in enumerate(np.flatnonzero(targets == digit)[:limit].tolist()):
            split = "train" if number % VAL_EVERY else "val"
            folder = root / split / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            scan = (images[row].reshape(8, 8) * (255 / 16)).astype(np.uint8)
            large = cv2.resize(scan, (WIDTH, WIDTH), interpolation=cv2.INTER_LINEAR_EXACT)
            (folder / f"{number:03d}.png").write_bytes(cv2.imencode(".png", large)[1].tobytes())
    (root / DONE).write_text("scikit-learn's load_digits: E. Alpaydin, C. Kaynak, UCI, CC BY 4.0\n")
