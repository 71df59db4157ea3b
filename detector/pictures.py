"""Pictures of what a model finds, beside what is there."""

from collections.abc import Sequence

import cv2
import numpy as np

from detector.data import ValSet
from detector.draw import Picture, contact_sheet, picture_of
from detector.evaluation import Found
from detector.structures import Detections

SHOWN_SCORE = 0.25  # boxes with a lower score are left out of pictures
MOST_PAIRS, PAIRS_A_ROW = 8, 2
TITLE = 28  # px, height of the line of titles


def as_picture(
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


def true_and_found(val: ValSet, found: Sequence[Found], names: Sequence[str]) -> np.ndarray:
    """The first of the images twice, side by side: with the true boxes, and with those found.

    Args:
        val: has the images and their boxes.
        found: by image, as `Evaluator.shown`.
        names: of the classes, by label.

    Returns:
        uint8 [H, W, 3], RGB, up to `MOST_PAIRS` pairs.
    """
    number_of = {int(i): number for number, i in enumerate(val.reader.index.image_ids)}
    pictures: list[Picture] = []
    for each in found[:MOST_PAIRS]:
        sample = val.reader.read(number_of[each.image_id])
        pictures.append(picture_of(sample, names))
        pictures.append(as_picture(sample.image, each.detections, names, SHOWN_SCORE))
    columns = 2 * min(PAIRS_A_ROW, max(len(pictures) // 2, 1))
    sheet = contact_sheet(pictures, columns=columns)
    titles = np.full((TITLE, sheet.shape[1], 3), 255, np.uint8)
    for column in range(columns):
        at = (column * sheet.shape[1] // columns + 4, TITLE - 9)
        word = "found" if column % 2 else "true"
        cv2.putText(titles, word, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([titles, sheet])
