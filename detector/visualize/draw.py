"""Drawing boxes on images, and images on contact sheets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detector.errors import UserError
from detector.structures import Batch, Sample

# (image uint8 [H, W, 3] RGB, boxes_xyxy [n, 4] px, n captions)
Picture = tuple[np.ndarray, np.ndarray, Sequence[str]]

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(word: str) -> tuple[int, int, int]:
    """A vivid color, RGB, which depends on the word alone."""
    hue = sum((i + 1) * ord(c) * 47 for i, c in enumerate(word)) % 180
    pixel = cv2.cvtColor(np.uint8([[[hue, 210, 255]]]), cv2.COLOR_HSV2RGB)  # pyright: ignore
    return tuple(int(v) for v in pixel[0, 0])  # pyright: ignore[reportReturnType]


def draw_boxes(picture: Picture) -> np.ndarray:
    """Draws the boxes, captions at their upper left corners; returns uint8 [H, W, 3].

    The color depends on the first word of the caption, so a class has the same one everywhere.
    """
    image, boxes_xyxy, captions = picture
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    line = max(1, round(max(height, width) / 400))
    size = max(0.35, max(height, width) / 1600)
    for (x1, y1, x2, y2), caption in zip(np.round(boxes_xyxy).tolist(), captions, strict=True):
        color = class_color(caption.split(" ")[0])
        corner, other = (int(x1), int(y1)), (int(x2) - 1, int(y2) - 1)
        cv2.rectangle(image, corner, other, color, line, cv2.LINE_AA)
        (text_width, text_height), base = cv2.getTextSize(caption, _FONT, size, 1)
        left = max(min(corner[0], width - text_width), 0)
        bottom = corner[1] if corner[1] > text_height + base else corner[1] + text_height + base
        cv2.rectangle(
            image, (left, bottom - text_height - base), (left + text_width, bottom), color, -1
        )
        cv2.putText(
            image, caption, (left, bottom - base // 2), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA
        )
    return image


def caption_ground_truth(sample: Sample, names: Sequence[str]) -> Picture:
    """Captions the boxes of a sample with their class names; crowd regions come last."""
    boxes = np.concatenate([sample.boxes_xyxy, sample.ignore_xyxy])
    captions = [names[int(label)] for label in sample.labels.tolist()]
    captions += ["(crowd)"] * len(sample.ignore_xyxy)
    return sample.image, boxes, captions


def caption_batch(batch: Batch, names: Sequence[str]) -> list[Picture]:
    """Captions the boxes of each image of a batch with their class names."""
    images = batch.images.permute(0, 2, 3, 1).numpy()
    pictures: list[Picture] = []
    for number, image in enumerate(images):
        mine = batch.image_index == number
        captions = [names[int(label)] for label in batch.labels[mine].tolist()]
        crowds = batch.ignore_xyxy[batch.ignore_index == number].numpy()
        captions += ["(crowd)"] * len(crowds)
        boxes = np.concatenate([batch.boxes_xyxy[mine].numpy(), crowds])
        pictures.append((image, boxes, captions))
    return pictures


def contact_sheet(
    pictures: Sequence[Picture], *, limit: int = 16, cell: int = 400, columns: int = 0
) -> np.ndarray:
    """Draws up to `limit` pictures in cells of `cell` px; in a square grid by default."""
    shown = pictures[:limit]
    columns = columns or max(math.ceil(math.sqrt(len(shown))), 1)
    rows = max(math.ceil(len(shown) / columns), 1)
    sheet = np.full((rows * cell, columns * cell, 3), 255, np.uint8)
    for number, (image, boxes_xyxy, captions) in enumerate(shown):
        scale = (cell - 4) / max(image.shape[:2])
        size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, size, interpolation=method)
        small = draw_boxes((small, boxes_xyxy * scale, captions))
        y, x = number // columns * cell, number % columns * cell
        sheet[y : y + size[1], x : x + size[0]] = small
    return sheet


def save_image(path: Path, image: np.ndarray) -> None:
    """Writes an image, uint8 [H, W, 3] RGB, in the format of the suffix.

    Raises:
        UserError: the file cannot be written.
    """
    suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") else ".jpg"
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done, f"OpenCV cannot encode {suffix}"
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A box to draw in a given color.

    Attributes:
        box_xyxy: [4], corners, pixels.
        color: RGB.
        caption: text beside the box; none where empty.
        below: whether the caption is below the box, else above it.
        thickness: pixels.
    """

    box_xyxy: np.ndarray
    color: tuple[int, int, int]
    caption: str = ""
    below: bool = False
    thickness: int = 2


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Draws marks on an image, the last ones on top, captions above all boxes."""
    image = np.ascontiguousarray(image).copy()
    for mark in marks:
        x1, y1, x2, y2 = (round(value) for value in mark.box_xyxy.tolist())
        corner, other = (x1, y1), (x2 - 1, y2 - 1)
        cv2.rectangle(image, corner, other, mark.color, mark.thickness, cv2.LINE_AA)
    for mark in marks:
        if not mark.caption:
            continue
        x1, y1, _, y2 = (round(value) for value in mark.box_xyxy.tolist())
        (width, height), base = cv2.getTextSize(mark.caption, _FONT, 0.42, 1)
        tall = height + base
        left = max(min(x1, image.shape[1] - width), 0)
        bottom = y2 + tall if mark.below else y1
        bottom = min(max(bottom, tall), image.shape[0])
        cv2.rectangle(image, (left, bottom - tall), (left + width, bottom), mark.color, -1)
        place = (left, bottom - base // 2)
        cv2.putText(image, mark.caption, place, _FONT, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return image
