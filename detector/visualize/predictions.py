"""Pictures of ground truth and detections side by side."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from detector.structures import Detections, ImageDetections, Sample
from detector.visualize.draw import Picture, caption_ground_truth, contact_sheet

MIN_SCORE = 0.25  # detections with a lower score are not drawn
MAX_PAIRS, PAIRS_PER_ROW = 8, 2
TITLE_HEIGHT = 28  # px


def caption_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str], conf: float
) -> Picture:
    """Captions the detections of score `conf` or more with `name score`."""
    kept = detections.scores >= conf
    captions = [
        f"{names[label]} {score:.2f}"
        for label, score in zip(
            detections.labels[kept].tolist(), detections.scores[kept].tolist(), strict=True
        )
    ]
    return image, detections.boxes_xyxy[kept].numpy(), captions


def draw_ground_truth_and_detections(
    samples: Iterable[Sample], detections: Iterable[ImageDetections], names: Sequence[str]
) -> np.ndarray:
    """Draws each image twice, side by side: with its ground truth, and with its detections.

    Args:
        samples: the images and their ground truth; only the first `MAX_PAIRS` are read.
        detections: of the same images in the same order.
        names: of the classes, by label.

    Returns:
        uint8 [H, W, 3], RGB, up to `MAX_PAIRS` pairs.
    """
    pictures: list[Picture] = []
    for _, sample, each in zip(range(MAX_PAIRS), samples, detections, strict=False):
        pictures.append(caption_ground_truth(sample, names))
        pictures.append(caption_detections(sample.image, each.detections, names, MIN_SCORE))
    columns = 2 * min(PAIRS_PER_ROW, max(len(pictures) // 2, 1))
    sheet = contact_sheet(pictures, columns=columns)
    titles = np.full((TITLE_HEIGHT, sheet.shape[1], 3), 255, np.uint8)
    for column in range(columns):
        at = (column * sheet.shape[1] // columns + 4, TITLE_HEIGHT - 9)
        word = "detections" if column % 2 else "ground truth"
        cv2.putText(titles, word, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([titles, sheet])
