"""Checks of labels, on indices alone: no image is opened."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from detector.anchors import find_unmatched, measure_fit
from detector.boxes import box_sizes
from detector.command_names import format_command
from detector.data.checks.check_report import SplitSummary
from detector.data.checks.problems import KINDS, Problem, sort_problems
from detector.data.scaled_boxes import letterboxed_box_sizes
from detector.data.store.index import CATEGORY_KINDS, INDEXED_KINDS, Index

Splits = Mapping[str, Index]

TINY = 2.0  # px, smaller of width and height at the training size: a quarter of the finest stride
HUGE = 0.99  # fraction of the image's area
FEW_BOXES = 10  # of a class, in training
IMBALANCE = 100  # ratio of box counts, most frequent class to a rare one
FEW_IMAGES = {"train": 100}  # labelled images, by split
FEW_TO_MEASURE = 20  # labelled images of other splits
REPORTED_SHARE = 0.05  # warnings about a smaller fraction are not reported at the start of a run
REPORTED_LINES = 4


def check_labels(
    splits: Splits, *, size: int, anchors: np.ndarray | None = None, ratio: float = 4.0
) -> list[Problem]:
    """Finds all problems of the labels, errors first.

    Args:
        splits: by name, "train" among them.
        size: of the training image, pixels.
        anchors: [k, 2], pixels; None: their fit is not checked.
        ratio: below which an anchor matches a box, see `loss.anchor_ratio`.
    """
    sizes = {name: letterboxed_box_sizes(index, size) for name, index in splits.items()}
    problems = [
        *_group_findings(splits),
        *_find_split_problems(splits),
        *_find_class_problems(splits),
        _select_boxes("box partly outside", splits, lambda name: splits[name].clipped),
        _select_boxes("duplicate box", splits, lambda name: find_duplicate_boxes(splits[name])),
        _select_boxes("tiny box", splits, lambda name: sizes[name].min(1, initial=np.inf) < TINY),
        _select_boxes("huge box", splits, lambda name: _compute_area_shares(splits[name]) > HUGE),
        _find_images_without_label(splits),
    ]
    if anchors is not None:
        problems.append(
            _select_boxes(
                "box without anchor",
                splits,
                lambda name: find_unmatched(sizes[name], anchors, ratio),
            )
        )
    return sort_problems(problem for problem in problems if problem is not None)


def summarise_split(
    name: str, index: Index, *, size: int, anchors: np.ndarray | None, ratio: float
) -> SplitSummary:
    """Computes the statistics of a split; arguments as in `check_labels`."""
    objects = ~index.crowd
    sizes = letterboxed_box_sizes(index, size)[objects]
    counts = np.bincount(index.labels[objects], minlength=len(index.names))
    order = np.argsort(-counts, kind="stable")
    fit = None if anchors is None or not len(sizes) else str(measure_fit(sizes, anchors, ratio))
    return SplitSummary(
        split=name,
        images=len(index),
        labelled=int((_count_objects_by_image(index) > 0).sum()),
        boxes=int(objects.sum()),
        crowds=int(index.crowd.sum()),
        side=_compute_percentiles(np.sqrt(sizes.prod(1))),
        aspect=_compute_percentiles(sizes[:, 0] / sizes[:, 1]),
        boxes_by_class={index.names[label]: int(counts[label]) for label in order},
        anchors=fit,
    )


def _compute_percentiles(values: np.ndarray) -> tuple[float, float, float]:
    """The 5th, 50th and 95th percentile; zeros without values."""
    low, middle, high = np.percentile(values if len(values) else np.zeros(1), (5, 50, 95))
    return float(low), float(middle), float(high)


def describe_label_problems(
    name: str, splits: Splits, *, size: int, anchors: np.ndarray, ratio: float
) -> list[str]:
    """Label problems to report before a run: up to five lines.

    Kinds that readers skip are not included: those are reported one by one. `name`: of the data set.
    """
    skipped = {
        finding.kind for index in splits.values() for finding in index.findings if finding.skipped
    }
    reported = [
        problem
        for problem in check_labels(splits, size=size, anchors=anchors, ratio=ratio)
        if problem.kind not in skipped
        and (
            problem.properties.severity == "error"
            or problem.share >= REPORTED_SHARE
            or problem.kind == "image elsewhere"
        )
    ]
    lines = [f"labels: {problem}" for problem in reported[:REPORTED_LINES]]
    if reported:
        more = (
            f"{len(reported) - REPORTED_LINES} more kinds of problems; "
            if len(reported) > REPORTED_LINES
            else ""
        )
        command = format_command("check_data", name)
        lines.append(f"labels: {more}for details and advice: {command}")
    return lines


def describe_findings(splits: Splits) -> list[str]:
    """What readers report of images and categories that they use nevertheless, a line for each kind."""
    kinds = ("size mismatch", "image elsewhere", *CATEGORY_KINDS)
    return [f"labels: {each}" for each in _group_findings(splits) if each.kind in kinds]


def image_name(index: Index, number: int) -> str:
    """The name of an image in reports: its folder's name and its file name."""
    return str(Path(index.folder.name) / str(index.files[number]))


def find_duplicate_boxes(index: Index) -> np.ndarray:
    """Mask [m] of boxes that equal an earlier one of their image and class, rounded to pixels."""
    corners = np.round(index.boxes_xyxy).astype(np.uint64)  # below 2^16, as image sizes are
    place = corners @ (np.uint64(1) << np.array([48, 32, 16, 0], np.uint64))
    owner = (index.box_image_numbers() * len(index.names) + index.labels) * 2 + index.crowd
    order = np.lexsort((place, owner))  # stable: equal boxes keep their order
    again = np.zeros(len(order), bool)
    again[order[1:]] = (np.diff(owner[order]) == 0) & (place[order[1:]] == place[order[:-1]])
    return again


def _group_findings(splits: Splits) -> Iterator[Problem]:
    """Turns the findings of readers into one problem per kind."""
    findings = [
        finding
        for name, index in splits.items()
        for finding in index.findings
        if not (finding.kind == "image without label" and _is_unlabelled_test(name, index))
    ]
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same = [finding for finding in findings if finding.kind == kind]
        unit = KINDS[kind].unit if kind in KINDS else None
        good = sum(
            len(index) if unit == "images" else len(index.labels) if unit == "boxes" else 0
            for index in splits.values()
        )
        total = max(good, len(same)) if kind in INDEXED_KINDS else good + len(same)
        yield Problem.collect(kind, len(same), total, map(str, same))


def _select_boxes(kind: str, splits: Splits, select: Callable[[str], np.ndarray]) -> Problem | None:
    """The problem with the boxes that `select` returns as a mask by split; None if it selects none.

    Crowds are not counted.
    """
    chosen: dict[str, np.ndarray] = {}
    for name, index in splits.items():
        chosen[name] = (select(name) & ~index.crowd).nonzero()[0]
    count = sum(map(len, chosen.values()))
    if not count:
        return None
    total = sum(int((~index.crowd).sum()) for index in splits.values())
    words = chain.from_iterable(_describe(splits[name], rows) for name, rows in chosen.items())
    return Problem.collect(kind, count, total, words)


def _describe(index: Index, rows: np.ndarray) -> Iterator[str]:
    owner = np.searchsorted(index.starts, rows, side="right") - 1
    for row, image in zip(rows, owner, strict=True):
        box = " ".join(f"{value:.1f}" for value in index.boxes_xyxy[row])
        yield f"{image_name(index, image)}: {index.names[index.labels[row]]} at {box}"


def _compute_area_shares(index: Index) -> np.ndarray:
    areas = box_sizes(index.boxes_xyxy).astype(np.float64).prod(1)
    return areas / index.sizes.prod(1)[index.box_image_numbers()]


def _count_objects_by_image(index: Index) -> np.ndarray:
    return np.bincount(index.box_image_numbers()[~index.crowd], minlength=len(index))


def _find_images_without_label(splits: Splits) -> Problem | None:
    """Finds images without any box, crowds included."""
    empty = {
        name: (np.diff(index.starts) == 0).nonzero()[0]
        for name, index in splits.items()
        if not _is_unlabelled_test(name, index)
    }
    count = sum(map(len, empty.values()))
    if not count:
        return None
    names = (image_name(splits[name], i) for name, images in empty.items() for i in images)
    return Problem.collect("image without label", count, sum(map(len, splits.values())), names)


def _is_unlabelled_test(name: str, index: Index) -> bool:
    """Whether this is a test split that is published without labels, such as COCO's test-dev."""
    return name == "test" and not len(index.labels)


def _find_split_problems(splits: Splits) -> Iterator[Problem]:
    labelled = {
        name: int((_count_objects_by_image(index) > 0).sum()) for name, index in splits.items()
    }
    none = [n for n, c in labelled.items() if not c and not _is_unlabelled_test(n, splits[n])]
    if none:
        words = (f"{name}: none of {len(splits[name]):,} images has an object" for name in none)
        yield Problem.collect("no labelled image", len(none), len(splits), words)
    few = [n for n, c in labelled.items() if 0 < c < FEW_IMAGES.get(n, FEW_TO_MEASURE)]
    if few:
        words = (
            f"{name}: {labelled[name]} labelled images; fewer than "
            f"{FEW_IMAGES.get(name, FEW_TO_MEASURE)} are too few for reliable results"
            for name in few
        )
        yield Problem.collect("small data set", len(few), len(splits), words)
    first, *others = splits
    differing = [name for name in others if splits[name].names != splits[first].names]
    if differing:
        words = (
            f"{name}: {len(splits[name].names)} classes, {first}: {len(splits[first].names)}; "
            f"{_first_difference(splits[first].names, splits[name].names)}"
            for name in differing
        )
        yield Problem.collect("other classes", len(differing), len(splits), words)


def _first_difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    for label, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f"label {label} is {other!r}, not {one!r}"
    longer = max(ours, theirs, key=len)
    return f"only one has {longer[min(len(ours), len(theirs))]!r}"


def _find_class_problems(splits: Splits) -> Iterator[Problem]:
    """Finds problems of the training split's classes; other splits are compared by class name."""
    counts: dict[str, dict[str, int]] = {}
    for name, index in splits.items():
        numbers = np.bincount(index.labels[~index.crowd], minlength=len(index.names))
        counts[name] = dict(zip(index.names, numbers.tolist(), strict=True))
    train = counts["train"]
    if not any(train.values()):
        return
    total = len(train)
    elsewhere = {
        name: [split for split in counts if split != "train" and counts[split].get(name)]
        for name, count in train.items()
        if not count
    }
    unseen = [f"{name}: in {' and '.join(where)}" for name, where in elsewhere.items() if where]
    unused = [name for name, where in elsewhere.items() if not where]
    rare = [f"{name}: {n} training boxes" for name, n in train.items() if 0 < n < FEW_BOXES]
    most = max(train, key=lambda name: train[name])
    few = [n for n, boxes in train.items() if FEW_BOXES <= boxes <= train[most] / IMBALANCE]
    against = (
        f"{name}: {train[name]:,} boxes, {most}: {train[most]:,}"
        for name in sorted(few, key=lambda name: train[name])
    )
    for kind, examples in (
        ("class only in val", unseen),
        ("class without boxes", unused),
        ("rare class", rare),
    ):
        if examples:
            yield Problem.collect(kind, len(examples), total, examples)
    if few:
        yield Problem.collect("class imbalance", len(few), total, against)
