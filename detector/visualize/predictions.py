"""Pictures of what a model finds, beside what is there."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from detector.structures import Detections, ImageDetections, Sample
from detector.visualize.draw import Picture, caption_ground_truth, contact_sheet

SHOWN_SCORE = 0.25  # boxes with a lower score are left out of pictures
MOST_PAIRS, PAIRS_A_ROW = 8, 2
TITLE = 28  # px, height of the line of titles


def caption_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str], conf: float
) -> Picture:
    """Image and detections of score `conf` or more, captioned `name score`."""
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
    """Each image twice, side by side: with its ground truth, and with its detections.

    Args:
        samples: the images and their ground truth; only the first `MOST_PAIRS` are read.
        detections: of the same images in the same order.
        names: of the classes, by label.

    Returns:
        uint8 [H, W, 3], RGB, up to `MOST_PAIRS` pairs.
    """
    pictures: list[Picture] = []
    for _, sample, each in zip(range(MOST_PAIRS), samples, detections, strict=False):
        pictures.append(caption_ground_truth(sample, names))
        pictures.append(caption_detections(sample.image, each.detections, names, SHOWN_SCORE))
    columns = 2 * min(PAIRS_A_ROW, max(len(pictures) // 2, 1))
    sheet = contact_sheet(pictures, columns=columns)
    titles = np.full((TITLE, sheet.shape[1], 3), 255, np.uint8)
    for column in range(columns):
        at = (column * sheet.shape[1] // columns + 4, TITLE - 9)
        word = "found" if column % 2 else "true"
        cv2.putText(titles, word, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([titles, sheet])
