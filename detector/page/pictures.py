"""Images with their true and found boxes: the worst ones, and labels that may be wrong."""

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detector.data import UnreadableImage
from detector.draw import draw_labelled, save_image
from detector.evaluation import Analysis, Suspect
from detector.page.tables import text
from detector.validation import Outcome

TRUE, FOUND = (40, 200, 90), (255, 120, 0)
SIDE = 480  # px, of pictures
SUSPECTS = 24  # shown; the JSON has all


def worst_pictures(folder: Path, outcome: Outcome, analysis: Analysis) -> str:
    """The images with most errors, truths and sure boxes drawn in; also as worst_*.png."""
    truth, results = outcome.truth, outcome.results
    figures = []
    for number, (image, missed, false) in enumerate(analysis.worst, 1):
        mine = truth.image == image
        sure = (results.image == image) & (results.score >= analysis.threshold)
        marks = [
            (box, truth.names[label], TRUE)
            for box, label in zip(truth.boxes_xywh[mine], truth.label[mine], strict=True)
        ] + [
            (box, f"{truth.names[label]} {score:.2f}", FOUND)
            for box, label, score in zip(
                results.boxes_xywh[sure], results.label[sure], results.score[sure], strict=True
            )
        ]
        picture = _picture(outcome, image, marks)
        if picture is not None:
            caption = f"{file_of(outcome, image)}: {missed} missed, {false} false"
            figures.append(_figure(folder / f"worst_{number:02}.png", picture, caption))
    return _figures(figures, outcome)


def suspect_pictures(folder: Path, outcome: Outcome, suspects: Sequence[Suspect]) -> str:
    """The first suspects, each enlarged, with the labels around a find; also as label_*.png."""
    truth = outcome.truth
    figures = []
    for number, one in enumerate(suspects[:SUSPECTS], 1):
        colour = TRUE if one.found is None else FOUND
        marks = [(np.array(one.box_xywh), one.found or one.labelled or "", colour)]
        if one.found is not None:
            mine = (truth.image == one.image).nonzero()[0]
            marks += [(truth.boxes_xywh[m], truth.names[truth.label[m]], TRUE) for m in mine]
        picture = _picture(outcome, one.image, marks, around=True)
        if picture is None:
            continue
        said = {
            "no label": f"found {one.found}, score {one.score:.2f}, without a label",
            "other class": f"labelled {one.labelled}, found {one.found}, score {one.score:.2f}",
            "nothing there": f"labelled {one.labelled}, nothing found there",
        }[one.kind]
        caption = f"{number}. {said} ({file_of(outcome, one.image)})"
        figures.append(_figure(folder / f"label_{number:02}.png", picture, caption))
    return _figures(figures, outcome)


def _figures(figures: Sequence[str], outcome: Outcome) -> str:
    if outcome.val is None:
        return "<p>No pictures: these are results from a file.</p>"
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _place(outcome: Outcome, image: int) -> int | None:
    """The number of an image in the validation set; one whose file is missing has none."""
    if outcome.val is None:
        return None
    at = np.flatnonzero(outcome.val.reader.index.image_ids == outcome.truth.image_ids[image])
    return int(at[0]) if len(at) else None


def file_of(outcome: Outcome, image: int) -> str:
    """The file of an image, or its id where no file is known."""
    number = _place(outcome, image)
    if number is None or outcome.val is None:
        return f"image id {outcome.truth.image_ids[image]}"
    return outcome.val.reader.index.files[number]


def _picture(
    outcome: Outcome,
    image: int,
    marks: Sequence[tuple[np.ndarray, str, tuple[int, int, int]]],
    *,
    around: bool = False,
) -> np.ndarray | None:
    """An image with boxes (xywh, caption, colour), or the part of it around the first.

    None where there is no file.
    """
    number = _place(outcome, image)
    if number is None or outcome.val is None:
        return None
    try:
        pixels = outcome.val.reader.read(number).image
    except UnreadableImage:
        return None
    corner = np.zeros(2)
    if around:
        x, y, w, h = marks[0][0].tolist()
        half = max(w, h, 64) * 0.9
        height, width = pixels.shape[:2]
        left, top = int(max(x + w / 2 - half, 0)), int(max(y + h / 2 - half, 0))
        left, top = min(left, width - 1), min(top, height - 1)
        right, bottom = (
            int(min(x + w / 2 + half, width)) + 1,
            int(min(y + h / 2 + half, height)) + 1,
        )
        pixels, corner = pixels[top:bottom, left:right], np.array([left, top])
    scale = SIDE / max(pixels.shape[:2])
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    pixels = cv2.resize(
        pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    placed = [
        (np.concatenate([box[:2] - corner, box[:2] - corner + box[2:]]) * scale, name, colour)
        for box, name, colour in marks
    ]
    return draw_labelled(pixels, placed)


def _figure(path: Path, picture: np.ndarray, caption: str) -> str:
    save_image(path, picture)
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    inside = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/jpeg;base64,{inside}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
