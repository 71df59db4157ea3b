"""Images with their true and found boxes: the worst ones, and labels that may be wrong."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from detector.api.validation import Evaluation
from detector.data import UnreadableImage
from detector.evaluation import Analysis, GroundTruth, LabelSuspect
from detector.html_report.tables import text
from detector.visualize.draw import Mark, draw_marks, save_image

TRUE, FOUND, RIGHT = (40, 200, 90), (255, 120, 0), (215, 215, 215)
LARGE, SMALL = 720, 420  # px, the longer side of whole images and of parts
SUSPECTS = 24  # shown; the JSON has all


def worst_pictures(folder: Path, outcome: Evaluation, analysis: Analysis) -> str:
    """The images with most errors, with these drawn in; also as worst_*.png."""
    truth, results = outcome.truth, outcome.results
    figures = []
    for number, bad in enumerate(analysis.worst, 1):
        marks = [_mark(truth.boxes_xywh[row], RIGHT, thickness=1) for row in bad.found]
        marks += [_true(truth, row) for row in bad.missed]
        for row in bad.false:
            caption = f"{truth.names[results.label[row]]} {results.score[row]:.2f}"
            marks.append(_mark(results.boxes_xywh[row], FOUND, caption, below=True))
        pixels = _read(outcome, bad.image)
        if pixels is not None:
            picture = _drawn(pixels, marks, LARGE)
            caption = (
                f"{file_of(outcome, bad.image)}: {len(bad.missed)} missed, {len(bad.false)} false"
            )
            figures.append(_figure(folder / f"worst_{number:02}.png", picture, caption))
    return _figures(figures, outcome, "large")


def suspect_pictures(folder: Path, outcome: Evaluation, suspects: Sequence[LabelSuspect]) -> str:
    """The first suspects, each enlarged, with the labels around a find; also as label_*.png."""
    truth = outcome.truth
    figures = []
    for number, one in enumerate(suspects[:SUSPECTS], 1):
        pixels = _read(outcome, one.image)
        if pixels is None:
            continue
        box = np.array(one.box_xywh)
        if one.found is None:
            marks = [_mark(box, TRUE, one.labelled or "")]
        else:
            marks = [_true(truth, row) for row in (truth.image == one.image).nonzero()[0]]
            marks.append(_mark(box, FOUND, one.found, below=True))
        said = {
            "no label": f"found {one.found}, score {one.score:.2f}, without a label",
            "other class": f"labelled {one.labelled}, found {one.found}, score {one.score:.2f}",
            "nothing there": f"labelled {one.labelled}, nothing found there",
        }[one.kind]
        caption = f"{number}. {said} ({file_of(outcome, one.image)})"
        picture = _drawn(*_around(box, pixels, marks), SMALL)
        figures.append(_figure(folder / f"label_{number:02}.png", picture, caption))
    return _figures(figures, outcome, "small")


def _mark(
    box_xywh: np.ndarray,
    colour: tuple[int, int, int],
    caption: str = "",
    *,
    below: bool = False,
    thickness: int = 2,
) -> Mark:
    corners = np.concatenate([box_xywh[:2], box_xywh[:2] + box_xywh[2:]])
    return Mark(corners, colour, caption, below, thickness)


def _true(truth: GroundTruth, row: int) -> Mark:
    return _mark(truth.boxes_xywh[row], TRUE, truth.names[truth.label[row]])


def _figures(figures: Sequence[str], outcome: Evaluation, kind: str) -> str:
    if outcome.reader is None:
        return "<p>No pictures: these are results from a file, without the images.</p>"
    return f'<div class="pictures {kind}">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _place(outcome: Evaluation, image: int) -> int | None:
    """The number of an image among those that can be read; one whose file is missing has none."""
    if outcome.reader is None:
        return None
    at = np.flatnonzero(outcome.reader.index.image_ids == outcome.truth.image_ids[image])
    return int(at[0]) if len(at) else None


def file_of(outcome: Evaluation, image: int) -> str:
    """The file of an image, or its id where no file is known."""
    number = _place(outcome, image)
    if number is None or outcome.reader is None:
        return f"image id {outcome.truth.image_ids[image]}"
    return outcome.reader.index.files[number]


def _read(outcome: Evaluation, image: int) -> np.ndarray | None:
    """The pixels; None where there is no file that can be read."""
    number = _place(outcome, image)
    if number is None or outcome.reader is None:
        return None
    try:
        return outcome.reader.read(number).image
    except UnreadableImage:
        return None


def _around(
    box_xywh: np.ndarray, pixels: np.ndarray, marks: Sequence[Mark]
) -> tuple[np.ndarray, list[Mark]]:
    """The part of an image around a box, and the marks that reach into it."""
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


def _drawn(pixels: np.ndarray, marks: Sequence[Mark], side: int) -> np.ndarray:
    """With its marks, its longer side so many pixels."""
    scale = side / max(pixels.shape[:2])
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = [replace(mark, box_xyxy=mark.box_xyxy * scale) for mark in marks]
    return draw_marks(cv2.resize(pixels, size, interpolation=method), scaled)


def _figure(path: Path, picture: np.ndarray, caption: str) -> str:
    save_image(path, picture)
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    inside = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/jpeg;base64,{inside}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
