"""Images with their errors drawn in: those with the most errors, and probable label errors."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from detector.api.validation import Evaluation
from detector.data import UnreadableImage
from detector.evaluation import Analysis, GroundTruth, LabelError
from detector.evaluation.label_errors import NO_DETECTION, NO_LABEL, OTHER_CLASS
from detector.html_report.tables import escape
from detector.visualize.draw import Mark, draw_marks, save_image

GREEN, ORANGE, GREY = (40, 200, 90), (255, 120, 0), (215, 215, 215)  # RGB
LARGE, SMALL = 720, 420  # px, the longer side of whole images and of enlarged parts
MAX_LABEL_ERRORS = 24  # shown; label_errors.json has all


def draw_worst_images(folder: Path, evaluation: Evaluation, analysis: Analysis) -> str:
    """Draws the images with the most errors, and writes them as worst_*.png; returns their HTML."""
    ground_truth, results = evaluation.ground_truth, evaluation.results
    figures = []
    for number, errors in enumerate(analysis.worst_images, 1):
        marks = [
            _make_mark(ground_truth.boxes_xywh[row], GREY, thickness=1) for row in errors.matched
        ]
        marks += [_make_label_mark(ground_truth, row) for row in errors.missed]
        for row in errors.false_positives:
            caption = f"{ground_truth.names[results.label[row]]} {results.score[row]:.2f}"
            marks.append(_make_mark(results.boxes_xywh[row], ORANGE, caption, below=True))
        pixels = _read_image(evaluation, errors.image)
        if pixels is not None:
            missed, wrong = len(errors.missed), len(errors.false_positives)
            positives = "false positive" if wrong == 1 else "false positives"
            caption = (
                f"{find_image_name(evaluation, errors.image)}: {missed} missed, {wrong} {positives}"
            )
            picture = draw_scaled(pixels, marks, LARGE)
            figures.append(make_figure(folder / f"worst_{number:02}.png", picture, caption))
    return _make_figure_grid(figures, evaluation, "large")


def draw_label_errors(
    folder: Path, evaluation: Evaluation, label_errors: Sequence[LabelError]
) -> str:
    """Draws the first label errors, enlarged, and writes them as label_*.png; returns their HTML."""
    ground_truth = evaluation.ground_truth
    figures = []
    for number, one in enumerate(label_errors[:MAX_LABEL_ERRORS], 1):
        pixels = _read_image(evaluation, one.image)
        if pixels is None:
            continue
        box = np.array(one.box_xywh)
        if one.predicted is None:
            marks = [_make_mark(box, GREEN, one.labelled or "")]
        else:
            rows = (ground_truth.image == one.image).nonzero()[0]
            marks = [_make_label_mark(ground_truth, row) for row in rows]
            marks.append(_make_mark(box, ORANGE, one.predicted, below=True))
        about = {
            NO_LABEL: f"detected {one.predicted}, score {one.score:.2f}, no label",
            OTHER_CLASS: f"labelled {one.labelled}, detected {one.predicted}, score {one.score:.2f}",
            NO_DETECTION: f"labelled {one.labelled}, not detected",
        }[one.kind]
        caption = f"{number}. {about} ({find_image_name(evaluation, one.image)})"
        picture = draw_scaled(*_crop(box, pixels, marks), SMALL)
        figures.append(make_figure(folder / f"label_{number:02}.png", picture, caption))
    return _make_figure_grid(figures, evaluation, "small")


def _make_mark(
    box_xywh: np.ndarray,
    color: tuple[int, int, int],
    caption: str = "",
    *,
    below: bool = False,
    thickness: int = 2,
) -> Mark:
    corners = np.concatenate([box_xywh[:2], box_xywh[:2] + box_xywh[2:]])
    return Mark(corners, color, caption, below, thickness)


def _make_label_mark(ground_truth: GroundTruth, row: int) -> Mark:
    name = ground_truth.names[ground_truth.label[row]]
    return _make_mark(ground_truth.boxes_xywh[row], GREEN, name)


def _make_figure_grid(figures: Sequence[str], evaluation: Evaluation, kind: str) -> str:
    if evaluation.reader is None:
        return "<p>No images: the detections come from a results file, and --data names none.</p>"
    return f'<div class="pictures {kind}">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _find_index(evaluation: Evaluation, image: int) -> int | None:
    """The position of an image in the reader's index; None where its file is missing."""
    if evaluation.reader is None:
        return None
    image_id = evaluation.ground_truth.image_ids[image]
    at = np.flatnonzero(evaluation.reader.index.image_ids == image_id)
    return int(at[0]) if len(at) else None


def find_image_name(evaluation: Evaluation, image: int) -> str:
    """The file name of an image, or its id where no file is known."""
    number = _find_index(evaluation, image)
    if number is None or evaluation.reader is None:
        return f"image id {evaluation.ground_truth.image_ids[image]}"
    return evaluation.reader.index.files[number]


def _read_image(evaluation: Evaluation, image: int) -> np.ndarray | None:
    """The pixels, uint8 [H, W, 3]; None where there is no file or it cannot be read."""
    number = _find_index(evaluation, image)
    if number is None or evaluation.reader is None:
        return None
    try:
        return evaluation.reader.read(number).image
    except UnreadableImage:
        return None


def _crop(
    box_xywh: np.ndarray, pixels: np.ndarray, marks: Sequence[Mark]
) -> tuple[np.ndarray, list[Mark]]:
    """The part of an image around a box, and the marks that overlap it."""
    side = max(1.8 * box_xywh[2:].max(), 115)
    sizes = np.array([pixels.shape[1], pixels.shape[0]])
    first = np.minimum(box_xywh[:2] + box_xywh[2:] / 2 - side / 2, sizes - side)
    left, top = np.clip(first, 0, sizes - 1).astype(int).tolist()
    right, bottom = np.minimum(np.add([left, top], np.ceil(side)), sizes).astype(int).tolist()
    inside = [
        replace(mark, box_xyxy=mark.box_xyxy - [left, top, left, top])
        for mark in marks
        if (mark.box_xyxy[:2] < [right, bottom]).all() and (mark.box_xyxy[2:] > [left, top]).all()
    ]
    return pixels[top:bottom, left:right], inside


def draw_scaled(pixels: np.ndarray, marks: Sequence[Mark], longer_side: int) -> np.ndarray:
    """The image with its marks, resized to that longer side in pixels."""
    scale = longer_side / max(pixels.shape[:2])
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = [replace(mark, box_xyxy=mark.box_xyxy * scale) for mark in marks]
    return draw_marks(cv2.resize(pixels, size, interpolation=method), scaled)


def make_figure(path: Path, picture: np.ndarray, caption: str) -> str:
    """Writes a picture and returns it as an element of the page, with its caption."""
    save_image(path, picture)
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    inside = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{inside}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
