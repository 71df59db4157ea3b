"""What `Detector` returns: the detections of one image, with the image and the class names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from detector import structures
from detector.errors import UserError
from detector.visualize.draw import draw_boxes, save_image
from detector.visualize.predictions import caption_detections


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        box_xyxy: corners x1, y1, x2, y2, pixels of the original image.
        score: in [0, 1].
        label: the number of its class.
        name: the name of its class.
    """

    box_xyxy: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(frozen=True, slots=True)
class Detections(structures.Detections):
    """The detections of one image, highest score first.

    `len` is their number; iteration yields each as a `Detection`.

    Attributes:
        boxes_xyxy: float32 [n, 4], corners, pixels of the original image; on the CPU, as the others.
        scores: float32 [n], in [0, 1].
        labels: int64 [n], numbers of classes.
        names: the class names, by label.
        image: the original image, uint8 [H, W, 3], RGB.
        source: path or URL of the image; empty if it came as pixels.
        error: why the image could not be read; it then has no detections and no pixels.

    Example:
        >>> import numpy as np, torch
        >>> found = Detections(
        ...     boxes_xyxy=torch.tensor([[2.0, 1.0, 8.0, 5.0]]),
        ...     scores=torch.tensor([0.9]),
        ...     labels=torch.tensor([1]),
        ...     names=("cat", "dog"),
        ...     image=np.zeros((10, 20, 3), np.uint8),
        ... )
        >>> len(found)
        1
        >>> next(iter(found)).name
        'dog'
        >>> found.to_yolo()
        '1 0.25 0.3 0.3 0.4 0.9'
        >>> [crop.shape for crop in found.crop()]
        [(4, 6, 3)]
        >>> found.to_coco(image_id=7)[0]["bbox"]
        [2.0, 1.0, 6.0, 4.0]
    """

    names: tuple[str, ...] = ()
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), repr=False)
    source: str = ""
    error: str = ""

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(
            self.boxes_xyxy.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        )
        for box, score, label in rows:
            yield Detection((box[0], box[1], box[2], box[3]), score, label, self.names[label])

    def select(self, rows: Tensor) -> "Detections":
        """Selects detections by a mask [n] or by row numbers."""
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
        )

    def plot(self) -> np.ndarray:
        """The image with the boxes, names and scores drawn; uint8 [H, W, 3], RGB."""
        return draw_boxes(caption_detections(self.image, self, self.names, 0.0))

    def save(self, path: str | Path) -> Path:
        """Writes `plot()` to an image file, or into a folder under the name of the image's own file.

        Raises:
            UserError: the image has no pixels, or the file cannot be written.
        """
        path = Path(path)
        if not self.image.size:
            raise UserError(f"{path}: nothing to draw: {self.error or 'the image has no pixels'}")
        if path.is_dir():
            path = path / f"{Path(self.source).stem or 'image'}.jpg"
        save_image(path, self.plot())
        return path

    def to_coco(
        self, image_id: int = 0, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a COCO results file: image_id, category_id, bbox [x, y, width, height] px, score.

        Args:
            image_id: of the image in the annotation file.
            category_ids: of the annotation file, by label; default: the labels.
        """
        boxes = self.boxes_xyxy.double()
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {
                "image_id": image_id,
                "category_id": label if category_ids is None else category_ids[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in rows
        ]

    def to_yolo(self, *, scores: bool = True) -> str:
        """Lines `class x y width height [score]`: centre and size as fractions of the image's."""
        height, width = self.image.shape[:2]
        lines = []
        for (x1, y1, x2, y2), score, label, _ in self:
            box = (
                (x1 + x2) / 2 / width,
                (y1 + y2) / 2 / height,
                (x2 - x1) / width,
                (y2 - y1) / height,
            )
            values = (*box, score) if scores else box
            lines.append(" ".join([str(label), *(f"{value:.6g}" for value in values)]))
        return "\n".join(lines)

    def crop(self, margin: float = 0.0) -> list[np.ndarray]:
        """The pixels of each box, uint8 [h, w, 3], RGB; at least one pixel each.

        Args:
            margin: added on every side, as a fraction of the box's width and height.
        """
        height, width = self.image.shape[:2]
        crops = []
        for x1, y1, x2, y2 in self.boxes_xyxy.tolist():
            dx, dy = margin * (x2 - x1), margin * (y2 - y1)
            left, right = _pixel_range(x1 - dx, x2 + dx, width)
            top, bottom = _pixel_range(y1 - dy, y2 + dy, height)
            crops.append(self.image[top:bottom, left:right].copy())
        return crops

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, with the names in `data["class_name"]`.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("to_supervision needs supervision: pip install supervision") from None
        return supervision.Detections(
            xyxy=self.boxes_xyxy.numpy().reshape(-1, 4),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array([self.names[n] for n in self.labels.tolist()], dtype=str)},
        )


def _pixel_range(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels from `low` to `high`, within the image and at least one."""
    first = min(max(int(low), 0), size - 1)
    return first, max(min(round(high), size), first + 1)
