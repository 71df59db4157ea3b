"""Ground truth and detections as flat arrays, checked before any backend gets them."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from detector.coco_json import (
    CocoJson,
    check_coco_tree,
    load_json,
    parse_box,
    parse_id,
    parse_number,
    read_coco_json,
    show_entry,
)
from detector.errors import UserError
from detector.structures import ImageDetections


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """The labelled objects of an annotation file, those of the evaluated categories.

    Attributes:
        image_ids: int64 [n], ascending; all images of the file, with boxes or without.
        category_ids: int64 [classes], each label's category in the file.
        names: of the categories.
        image: int64 [m], the position in `image_ids` of each box's image.
        label: int64 [m], 0..classes-1.
        boxes_xywh: float64 [m, 4], pixels, as annotated.
        area: float64 [m], pixels, as annotated (COCO's are of the segment, not of the box).
        crowd: bool [m].
        notes: what was corrected, a line each.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    image: np.ndarray
    label: np.ndarray
    boxes_xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    notes: tuple[str, ...] = ()

    @classmethod
    def from_coco(
        cls, source: Path | CocoJson | Mapping[str, Any], category_ids: Sequence[int] | None = None
    ) -> Self:
        """Takes COCO's json, read or not, or the content of one; by default all its categories, by id.

        Annotations are renumbered from 1 for the backends: pycocotools takes a match with id 0 for
        none (cocoapi issue 664), and of two annotations with the same id it keeps the last only. Those
        with a non-finite box are skipped, as in training.

        Raises:
            UserError: as `check_coco_tree`; or no such category.
        """
        if isinstance(source, Path):
            checked = read_coco_json(source, named=False)
        elif isinstance(source, CocoJson):
            checked = source
        else:
            checked = check_coco_tree(source, "the annotations", named=False)
        name, annotations = checked.source, checked.annotations
        known = {entry["id"]: entry["name"] for entry in checked.categories}
        chosen = sorted(known) if category_ids is None else [int(i) for i in category_ids]
        for number in chosen:
            if number not in known:
                raise UserError(f"{name}: no category id {number} (known: {_format_ids(known)})")
        image_ids = np.array(sorted(entry["id"] for entry in checked.images), np.int64)
        label_of = {number: label for label, number in enumerate(chosen)}
        label = np.array([label_of.get(a["category_id"], -1) for a in annotations], np.int64)
        boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
        area = np.array([a.get("area", math.nan) for a in annotations], np.float64)
        kept = label >= 0
        return cls(
            image_ids=image_ids,
            category_ids=np.array(chosen, np.int64),
            names=tuple(known[i] for i in chosen),
            image=np.searchsorted(image_ids, [a["image_id"] for a in annotations])[kept],
            label=label[kept],
            boxes_xywh=boxes[kept],
            area=np.where(np.isnan(area), boxes[:, 2] * boxes[:, 3], area)[kept],
            crowd=np.array([a["iscrowd"] for a in annotations], bool)[kept],
            notes=tuple(_find_notes(name, annotations)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Detections in the images of a ground truth, COCO's results as arrays.

    Attributes:
        image: int64 [d], the position in the ground truth's `image_ids`.
        label: int64 [d].
        boxes_xywh: float64 [d, 4], pixels.
        score: float64 [d].
    """

    image: np.ndarray
    label: np.ndarray
    boxes_xywh: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, kept: np.ndarray) -> "Results":
        """A selection, by a mask or row numbers."""
        return Results(self.image[kept], self.label[kept], self.boxes_xywh[kept], self.score[kept])

    @classmethod
    def from_arrays(
        cls,
        ground_truth: GroundTruth,
        image_ids: np.ndarray,
        label: np.ndarray,
        boxes_xywh: np.ndarray,
        score: np.ndarray,
        source: str = "the detections",
    ) -> "Results":
        """Checks arrays of detections; `image_ids` as in the annotation file.

        Raises:
            UserError: an image id or label that the ground truth does not have, a non-finite score or
                box (pycocotools counts a NaN as a perfect score), a box of negative size.
        """
        image = _find_positions(image_ids, ground_truth.image_ids, f"{source}: image id {{}}")
        if len(label) and not (label.min() >= 0 and label.max() < len(ground_truth.names)):
            raise UserError(
                f"{source}: label {label.max()}; expected 0..{len(ground_truth.names) - 1}"
            )
        wrong = ~(np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(score))
        wrong |= (boxes_xywh[:, 2:] < 0).any(axis=1)
        if wrong.any():
            at = int(wrong.argmax())
            box = ", ".join(f"{value:g}" for value in boxes_xywh[at])
            raise UserError(
                f"{source}: image id {image_ids[at]}: box ({box}) with score {score[at]:g}; expected "
                f"finite numbers, width and height not negative. {int(wrong.sum())} detections are "
                f"invalid; a network that returns them has diverged"
            )
        return cls(image, label, boxes_xywh, score)

    @classmethod
    def from_detections(
        cls, ground_truth: GroundTruth, detections: Iterable[ImageDetections]
    ) -> "Results":
        """Joins the detections of images.

        Raises:
            UserError: as for `from_arrays`, or an image that occurs twice.
        """
        ids, labels, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
        boxes = [np.zeros((0, 4))]
        seen: set[int] = set()
        for each in detections:
            if each.image_id in seen:
                raise UserError(
                    f"image id {each.image_id} was evaluated twice; each image counts once"
                )
            seen.add(each.image_id)
            corners = each.detections.boxes_xyxy.double().numpy()
            boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1))
            ids.append(np.full(len(corners), each.image_id, np.int64))
            labels.append(each.detections.labels.numpy())
            scores.append(each.detections.scores.double().numpy())
        _find_positions(np.array(sorted(seen), np.int64), ground_truth.image_ids, "image id {}")
        return cls.from_arrays(
            ground_truth,
            np.concatenate(ids),
            np.concatenate(labels),
            np.concatenate(boxes),
            np.concatenate(scores),
        )


def read_results(path: Path, ground_truth: GroundTruth) -> Results:
    """Reads a results file in COCO's format, from any toolkit.

    It is a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}.

    Raises:
        UserError: a missing file, another format, unknown ids, non-finite numbers.
    """
    entries = load_json(path)
    if not isinstance(entries, list):
        raise UserError(
            f'{path}: expected a list of {{"image_id", "category_id", "bbox", "score"}}'
        )
    image_ids = _parse_ids(entries, "image_id", f"{path}: a result")
    category = _parse_ids(entries, "category_id", f"{path}: a result")
    order = np.argsort(ground_truth.category_ids)
    at = _find_positions(category, ground_truth.category_ids[order], f"{path}: category id {{}}")
    score, boxes = _parse_scores(entries, path), _parse_boxes(entries, path)
    return Results.from_arrays(ground_truth, image_ids, order[at], boxes, score, str(path))


def save_results(path: Path, results: Results, ground_truth: GroundTruth) -> None:
    """Writes COCO's results file, with all digits, so that its AP is bitwise the same."""
    columns = zip(
        ground_truth.image_ids[results.image].tolist(),
        ground_truth.category_ids[results.label].tolist(),
        results.boxes_xywh.tolist(),
        results.score.tolist(),
        strict=True,
    )
    entries = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in columns
    ]
    try:
        path.write_text(json.dumps(entries))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _parse_ids(entries: Sequence[Any], key: str, what: str) -> np.ndarray:
    ids = [parse_id(entry.get(key)) if isinstance(entry, Mapping) else None for entry in entries]
    if None in ids:
        entry = entries[ids.index(None)]
        raise UserError(
            f"{what} whose {key!r} is not a whole number of at most 63 bits: {show_entry(entry)}"
        )
    return np.array(ids, np.int64)


def _find_positions(ids: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    """The position of each id in `known`, which is ascending."""
    at = np.searchsorted(known, ids)
    padded = np.append(known, -1)
    missing = (at == len(known)) | (padded[at] != ids)
    if missing.any():
        raise UserError(
            f"{what.format(ids[int(missing.argmax())])}, which is not in the annotation file "
            f"(known: {_format_ids(known.tolist())}); are these of another data set or split?"
        )
    return at


def _parse_boxes(entries: Sequence[Any], path: Path) -> np.ndarray:
    boxes = [parse_box(entry.get("bbox")) for entry in entries]
    if None in boxes:
        entry = entries[boxes.index(None)]
        raise UserError(f"{path}: a result whose 'bbox' is not 4 numbers: {show_entry(entry)}")
    return np.array(boxes, np.float64).reshape(-1, 4)


def _parse_scores(entries: Sequence[Any], path: Path) -> np.ndarray:
    scores = [parse_number(entry.get("score")) for entry in entries]
    if None in scores:
        entry = entries[scores.index(None)]
        raise UserError(f"{path}: a result whose 'score' is not a number: {show_entry(entry)}")
    return np.array(scores, np.float64)


def _find_notes(name: str, annotations: Sequence[Any]) -> Iterator[str]:
    numbers = Counter(entry.get("id") for entry in annotations)
    renumbered = "annotations are renumbered from 1"
    if 0 in numbers:
        yield f"{name}: an annotation has id 0, which pycocotools takes for none; {renumbered}"
    (number, count), *_ = numbers.most_common(1) or [(None, 0)]
    if number is not None and count > 1:
        yield f"{name}: annotation id {number} occurs {count} times; all of them count, {renumbered}"


def _format_ids(ids: Iterable[Any]) -> str:
    shown = [str(i) for i in ids]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "") if shown else "none"
