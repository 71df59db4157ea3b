"""What the indices of the splits show, without opening an image."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from detector.anchors import find_unmatched, measure_fit
from detector.boxes import box_sizes
from detector.data.checks.problems import KINDS, Problem, SplitSummary, sort_problems
from detector.data.scaled_boxes import letterboxed_box_sizes
from detector.data.store.index import Index

Splits = Mapping[str, Index]

TINY = 2.0  # px of the shorter side at the training size: a quarter of the finest cell
HUGE = 0.99  # share of the image's area
FEW_BOXES = 10  # of a class, in training
IMBALANCE = 100  # boxes of the most frequent class for one of the rarest
FEW_IMAGES = {"train": 100}  # labelled ones
FEW_TO_MEASURE = 20
TOLD_SHARE = 0.05  # warnings about fewer are not worth a line at the start of a run
TOLD_LINES = 4


def check_labels(
    splits: Splits, *, size: int, anchors: np.ndarray | None = None, ratio: float = 4.0
) -> list[Problem]:
    """All problems that the indices show, errors first.

    Args:
        splits: by name, "train" among them.
        size: of the training image, pixels.
        anchors: [k, 2], pixels; without them their fit is not looked at.
        ratio: below which a box is given to an anchor.
    """
    sizes = {name: letterboxed_box_sizes(index, size) for name, index in splits.items()}
    problems = [
        *_findings(splits),
        *_split_problems(splits),
        *_class_problems(splits),
        _boxes("box partly outside", splits, lambda name: splits[name].cut),
        _boxes("duplicate box", splits, lambda name: find_duplicate_boxes(splits[name])),
        _boxes("tiny box", splits, lambda name: sizes[name].min(1, initial=np.inf) < TINY),
        _boxes("huge box", splits, lambda name: _area_shares(splits[name]) > HUGE),
        _without_label(splits),
    ]
    if anchors is not None:
        problems.append(
            _boxes(
                "box without anchor",
                splits,
                lambda name: find_unmatched(sizes[name], anchors, ratio),
            )
        )
    return sort_problems(problem for problem in problems if problem is not None)


def summarise(
    name: str, index: Index, *, size: int, anchors: np.ndarray | None, ratio: float
) -> SplitSummary:
    """A split in numbers; see `check_labels`."""
    objects = ~index.crowd
    sizes = letterboxed_box_sizes(index, size)[objects]
    counts = np.bincount(index.labels[objects], minlength=len(index.names))
    order = np.argsort(-counts, kind="stable")
    fit = None if anchors is None or not len(sizes) else str(measure_fit(sizes, anchors, ratio))
    return SplitSummary(
        split=name,
        images=len(index),
        labelled=int((_objects_by_image(index) > 0).sum()),
        boxes=int(objects.sum()),
        crowds=int(index.crowd.sum()),
        side=_spread(np.sqrt(sizes.prod(1))),
        aspect=_spread(sizes[:, 0] / sizes[:, 1]),
        boxes_by_class={index.names[label]: int(counts[label]) for label in order},
        anchors=fit,
    )


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    """What 5 %, 50 % and 95 % of the values are below; zeros if there are none."""
    low, middle, high = np.percentile(values if len(values) else np.zeros(1), (5, 50, 95))
    return float(low), float(middle), float(high)


def describe_label_problems(
    name: str, splits: Splits, *, size: int, anchors: np.ndarray, ratio: float
) -> list[str]:
    """What a run says of its labels before it starts: nothing, or up to five lines.

    What readers left out is not among it: it is named elsewhere. `name` is the data set's.
    """
    left_out = {
        finding.kind for index in splits.values() for finding in index.findings if finding.skipped
    }
    told = [
        problem
        for problem in check_labels(splits, size=size, anchors=anchors, ratio=ratio)
        if problem.kind not in left_out
        and (problem.about.severity == "error" or problem.share >= TOLD_SHARE)
    ]
    lines = [f"labels: {problem}" for problem in told[:TOLD_LINES]]
    if told:
        more = f"{len(told) - TOLD_LINES} more kinds and " if len(told) > TOLD_LINES else ""
        lines.append(f"labels: {more}what to do: python tools/check_data.py {name}")
    return lines


def image_name(index: Index, number: int) -> str:
    """An image as reports name it, with its folder."""
    return str(Path(index.folder.name) / str(index.files[number]))


def find_duplicate_boxes(index: Index) -> np.ndarray:
    """Boxes that stand in the same image before, with the same label, to the nearest pixel; bool [m]."""
    corners = np.round(index.boxes_xyxy).astype(np.uint64)  # below 2^16: no image is larger
    place = corners @ (np.uint64(1) << np.array([48, 32, 16, 0], np.uint64))
    owner = (index.box_image_numbers() * len(index.names) + index.labels) * 2 + index.crowd
    order = np.lexsort((place, owner))  # stable: of equal ones the first stays first
    again = np.zeros(len(order), bool)
    again[order[1:]] = (np.diff(owner[order]) == 0) & (place[order[1:]] == place[order[:-1]])
    return again


def _findings(splits: Splits) -> Iterator[Problem]:
    """What readers left out, by kind."""
    findings = [
        finding
        for name, index in splits.items()
        for finding in index.findings
        if not (finding.kind == "image without label" and _unlabelled_test(name, index))
    ]
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same = [finding for finding in findings if finding.kind == kind]
        of = KINDS[kind].of if kind in KINDS else None
        good = sum(
            len(index) if of == "images" else len(index.labels) if of == "boxes" else 0
            for index in splits.values()
        )
        yield Problem.collect(kind, len(same), good + len(same), map(str, same))


def _boxes(kind: str, splits: Splits, select: Callable[[str], np.ndarray]) -> Problem | None:
    """Boxes, crowds apart, that a mask by split selects; None if there are none."""
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


def _area_shares(index: Index) -> np.ndarray:
    areas = box_sizes(index.boxes_xyxy).astype(np.float64).prod(1)
    return areas / index.sizes.prod(1)[index.box_image_numbers()]


def _objects_by_image(index: Index) -> np.ndarray:
    return np.bincount(index.box_image_numbers()[~index.crowd], minlength=len(index))


def _without_label(splits: Splits) -> Problem | None:
    """Images without any box, crowds included."""
    empty = {
        name: (np.diff(index.starts) == 0).nonzero()[0]
        for name, index in splits.items()
        if not _unlabelled_test(name, index)
    }
    count = sum(map(len, empty.values()))
    if not count:
        return None
    names = (image_name(splits[name], i) for name, images in empty.items() for i in images)
    return Problem.collect("image without label", count, sum(map(len, splits.values())), names)


def _unlabelled_test(name: str, index: Index) -> bool:
    """Whether this is a test split that comes without its labels, as COCO's test-dev does."""
    return name == "test" and not len(index.labels)


def _split_problems(splits: Splits) -> Iterator[Problem]:
    labelled = {name: int((_objects_by_image(index) > 0).sum()) for name, index in splits.items()}
    none = [n for n, c in labelled.items() if not c and not _unlabelled_test(n, splits[n])]
    if none:
        words = (f"{name}: none of {len(splits[name]):,} images has an object" for name in none)
        yield Problem.collect("no labelled image", len(none), len(splits), words)
    few = [n for n, c in labelled.items() if 0 < c < FEW_IMAGES.get(n, FEW_TO_MEASURE)]
    if few:
        words = (
            f"{name}: {labelled[name]} labelled images; fewer than "
            f"{FEW_IMAGES.get(name, FEW_TO_MEASURE)} say little"
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


def _class_problems(splits: Splits) -> Iterator[Problem]:
    """Of the classes of the training split; those of others are compared by name."""
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
    unseen = [f"{name}: in {' and '.join(found)}" for name, found in elsewhere.items() if found]
    unused = [name for name, found in elsewhere.items() if not found]
    rare = [f"{name}: {n} training boxes" for name, n in train.items() if 0 < n < FEW_BOXES]
    most = max(train, key=lambda name: train[name])
    few = [n for n, boxes in train.items() if FEW_BOXES <= boxes <= train[most] / IMBALANCE]
    against = (
        f"{name}: {train[name]:,} boxes, {most}: {train[most]:,}"
        for name in sorted(few, key=lambda name: train[name])
    )
    for kind, found in (
        ("class only in val", unseen),
        ("class without boxes", unused),
        ("rare class", rare),
    ):
        if found:
            yield Problem.collect(kind, len(found), total, found)
    if few:
        yield Problem.collect("class imbalance", len(few), total, against)
