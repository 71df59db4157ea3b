"""A split of a data set as flat arrays, whatever its format.

Not an object for each image: workers share the arrays without copies, and a million images need little.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

CUT_LIMIT = 1.0  # px over the border; less is how annotation tools round


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one image or one box.

    Attributes:
        kind: a few words, the same for all of a kind: "missing image", "flat box", "box outside" ...
        where: the file, and what in it.
        what: what is wrong there.
    """

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Index:
    """The images of one split and their boxes.

    Attributes:
        folder: where the image files are.
        files: n file names; image_ids: int64 [n]; sizes: int64 [n, 2], height and width in pixels.
        starts: int64 [n + 1]; the boxes of image i are rows starts[i]:starts[i + 1].
        boxes_xyxy: float32 [m, 4], pixels; labels: int64 [m], 0..classes-1; crowd: bool [m].
        names: the class names, by label. category_ids: int64 [classes], the json's id of each label.
        annotations: the json file, COCO's own evaluation reads it.
        findings: what was left out, and why.
        cut: bool [m], boxes that reached more than `CUT_LIMIT` over the border of their image and were
            cut there; None where the reader does not say.
    """

    folder: Path
    files: np.ndarray
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    names: tuple[str, ...]
    category_ids: np.ndarray
    annotations: Path
    findings: tuple[Finding, ...]
    cut: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)
