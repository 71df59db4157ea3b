"""The kinds of problems that a data set can have, in one table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

from detector.data.store.index import INDEXED_KINDS

Severity = Literal["error", "warning"]

MAX_EXAMPLES = 1000  # stored per kind, for the json


@dataclass(frozen=True, slots=True)
class Kind:
    """Properties of a kind of problem.

    Attributes:
        severity: errors fail the check, warnings only with `--strict`.
        unit: what is counted: "images", "boxes", "classes" ...
        advice: what to do about it.
    """

    severity: Severity
    unit: str
    advice: str


# Errors first; reports keep this order. The keys are written to manifest.json and `--json`.
KINDS: Mapping[str, Kind] = {
    # what readers skip
    "missing image": Kind(
        "error", "images", "add the files, or remove the images from the annotations"
    ),
    "label not parsed": Kind(
        "error", "boxes", "correct the line; the message says what was expected"
    ),
    "unknown class": Kind("error", "boxes", "add the class to `names:`, or remove the box"),
    "not finite": Kind("error", "boxes", "correct or remove the box"),
    "flat box": Kind("error", "boxes", "the box has no area: remove or redraw it"),
    "box outside": Kind(
        "error", "boxes", "check whether the labels are of another image or image size"
    ),
    # images
    "unreadable image": Kind("error", "images", "copy or download the file again, or remove it"),
    "size mismatch": Kind(
        "error",
        "images",
        "were the images resized or rotated after labelling? then boxes do not fit them",
    ),
    # whole splits
    "no labelled image": Kind("error", "splits", "add labels: the split has no objects"),
    "other classes": Kind("error", "splits", "give every split the same classes in the same order"),
    "annotation id 0": Kind(
        "warning",
        "boxes",
        "number annotations from 1: pycocotools counts a match with id 0 as a miss",
    ),
    "box partly outside": Kind(
        "warning", "boxes", "they are clipped to the image; check whether they belong to it"
    ),
    "duplicate box": Kind("warning", "boxes", "remove the duplicate: the object is counted twice"),
    "tiny box": Kind(
        "warning", "boxes", "increase data.size or tile the images; remove boxes drawn by mistake"
    ),
    "huge box": Kind("warning", "boxes", "check whether the whole image was labelled by mistake"),
    "box without anchor": Kind("warning", "boxes", "never learnt: use model.anchors=auto"),
    "label without image": Kind("warning", "labels", "add the image, or delete the label file"),
    "image without label": Kind(
        "warning", "images", "they are used as background: label them if they contain objects"
    ),
    "image elsewhere": Kind(
        "warning", "images", "correct the list or the xml files, if these are not the images meant"
    ),
    "duplicate category": Kind(
        "warning", "categories", "fine if they are the same class; otherwise give them other names"
    ),
    "root category": Kind(
        "warning", "categories", "list the other classes in `names:`, or in data.classes of a run"
    ),
    "class only in val": Kind(
        "warning", "classes", "never learnt: split the data again, stratified by class"
    ),
    "class without boxes": Kind(
        "warning", "classes", "label some objects, or remove the class from `names:`"
    ),
    "rare class": Kind("warning", "classes", "collect more examples: so few are memorised"),
    "class imbalance": Kind(
        "warning", "classes", "collect more examples of rare classes, or set data.sampling"
    ),
    "small data set": Kind("warning", "splits", "start from trained weights (--weights)"),
    "same image in two splits": Kind(
        "warning", "images", "remove one: validation would measure memorisation"
    ),
    "similar image in two splits": Kind(
        "warning",
        "images",
        "keep images of a scene in one split: validation would measure memorisation",
    ),
    "same image twice": Kind("warning", "images", "remove one, or merge their labels"),
    "similar image twice": Kind(
        "warning", "images", "expected for video frames; otherwise remove duplicates"
    ),
}
UNKNOWN = Kind("warning", "findings", "see the examples")


@dataclass(frozen=True, slots=True)
class Problem:
    """All problems of one kind.

    Attributes:
        kind: a key of `KINDS`; other kinds are warnings.
        count: how many images, boxes ... have it. total: how many there are.
        examples: descriptions of the first `MAX_EXAMPLES`.
    """

    kind: str
    count: int
    total: int
    examples: tuple[str, ...]

    @classmethod
    def collect(cls, kind: str, count: int, total: int, examples: Iterable[str]) -> "Problem":
        """Makes a problem; takes only the first examples of the iterable."""
        return cls(kind, int(count), int(total), tuple(islice(examples, MAX_EXAMPLES)))

    @property
    def properties(self) -> Kind:
        """The properties of its kind."""
        return KINDS.get(self.kind, UNKNOWN)

    @property
    def share(self) -> float:
        """Fraction of the total, in [0, 1]."""
        return min(self.count / max(self.total, 1), 1.0)

    def __str__(self) -> str:
        first = f"; {self.examples[0]}" if self.examples else ""
        return f"{self.kind}: {self.count:,} of {self.total:,} {self.properties.unit}{first}"


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Merges problems of the same kind and sorts them as `KINDS`: errors first, unknown kinds last.

    Checks do not see what readers have skipped: counts are added. What readers report but keep
    (`INDEXED_KINDS`) is seen by checks, too: the larger count includes the smaller one.
    """
    merged: dict[str, Problem] = {}
    for problem in problems:
        before = merged.setdefault(problem.kind, problem)
        if before is not problem and problem.kind in INDEXED_KINDS:
            merged[problem.kind] = max(before, problem, key=lambda each: each.count)
        elif before is not problem:
            count, total = before.count + problem.count, max(before.total, problem.total)
            examples = chain(before.examples, problem.examples)
            merged[problem.kind] = Problem.collect(problem.kind, count, total, examples)
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(
        merged.values(),
        key=lambda p: (p.properties.severity != "error", place.get(p.kind, len(place))),
    )
