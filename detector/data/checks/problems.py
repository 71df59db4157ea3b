"""The kinds of problems, in one table, and the report of those that a data set has."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, Literal

from detector.data.store.index import KEPT_KINDS

Severity = Literal["error", "warning"]

LISTED = 1000  # examples kept of a kind; the json has them, the table shows the first few
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same for all problems of a kind.

    Attributes:
        severity: errors fail the check, warnings only with `--strict`.
        of: what is counted: "images", "boxes", "classes" ...
        advice: what to do about it.
    """

    severity: Severity
    of: str
    advice: str


# errors first; the report keeps this order
KINDS: Mapping[str, Kind] = {
    # what readers left out
    "missing image": Kind("error", "images", "put the files there, or drop them from the annotations"),
    "label not parsed": Kind("error", "boxes", "mend the line; the message says what was expected"),
    "unknown class": Kind("error", "boxes", "add the class to `names:`, or drop the box"),
    "not finite": Kind("error", "boxes", "mend or drop the box"),
    "flat box": Kind("error", "boxes", "drop the box, or draw it again"),
    "box outside": Kind("error", "boxes", "look for labels of another image, or of another image size"),
    # images
    "unreadable image": Kind("error", "images", "copy or download the file again, or drop it"),
    "size mismatch": Kind(
        "error",
        "images",
        "were the images resized or turned after labelling? boxes are in the old pixels then",
    ),
    # whole splits
    "no labelled image": Kind("error", "splits", "there is nothing to learn from or to measure on"),
    "other classes": Kind("error", "splits", "give every split the same classes in the same order"),
    "annotation id 0": Kind(
        "warning", "boxes", "number annotations from 1: pycocotools counts a match with id 0 as missed"
    ),
    "box partly outside": Kind(
        "warning", "boxes", "training cuts them at the border; look whether they fit their image"
    ),
    "duplicate box": Kind("warning", "boxes", "drop one of the two: the object counts twice"),
    "tiny box": Kind(
        "warning", "boxes", "a larger data.size, images cut into tiles; or drop slips of the mouse"
    ),
    "huge box": Kind("warning", "boxes", "look whether a whole image was labelled by mistake"),
    "box without anchor": Kind(
        "warning", "boxes", "never learnt; model.anchors=auto, or tools/cluster_anchors.py"
    ),
    "label without image": Kind("warning", "labels", "add the image, or delete the label file"),
    "image without label": Kind(
        "warning", "images", "they teach that nothing is there: fine for backgrounds, bad if forgotten"
    ),
    "class only in val": Kind("warning", "classes", "never learnt; split again by class"),
    "class without boxes": Kind("warning", "classes", "label some, or drop the class from `names:`"),
    "rare class": Kind("warning", "classes", "collect more; few examples are learnt by heart"),
    "class imbalance": Kind("warning", "classes", "collect more of the rare ones, or sample them more"),
    "small data set": Kind("warning", "splits", "start from trained weights (--weights)"),
    "same image in two splits": Kind("warning", "images", "drop one: validation measures memory"),
    "similar image in two splits": Kind(
        "warning", "images", "keep shots of one scene in one split: validation measures memory"
    ),
    "same image twice": Kind("warning", "images", "drop one, or join their labels"),
    "similar image twice": Kind("warning", "images", "fine for videos; else they count twice"),
}  # fmt: skip
UNKNOWN = Kind("warning", "findings", "see the file")


@dataclass(frozen=True, slots=True)
class Problem:
    """All of one kind.

    Attributes:
        kind: of `KINDS`; another one is a warning.
        count: how many. total: of how many.
        examples: the first `LISTED` of them, in words.
    """

    kind: str
    count: int
    total: int
    examples: tuple[str, ...]

    @classmethod
    def collect(cls, kind: str, count: int, total: int, examples: Iterable[str]) -> "Problem":
        """With the first examples; the others are not even made."""
        return cls(kind, int(count), int(total), tuple(islice(examples, LISTED)))

    @property
    def about(self) -> Kind:
        """What is known of the kind."""
        return KINDS.get(self.kind, UNKNOWN)

    @property
    def share(self) -> float:
        """Of the total, in [0, 1]."""
        return min(self.count / max(self.total, 1), 1.0)

    def __str__(self) -> str:
        first = f"; {self.examples[0]}" if self.examples else ""
        return f"{self.kind}: {self.count:,} of {self.total:,} {self.about.of}{first}"


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One split in numbers; sides are those of the square of equal area, at the training size.

    Attributes:
        side: 5 %, 50 % and 95 % of the boxes are smaller, pixels. aspect: the same of width / height.
        boxes_by_class: counts by name, the most frequent first.
        anchors: how the model's anchors fit, where a model was named.
    """

    split: str
    images: int
    labelled: int
    boxes: int
    crowds: int
    side: tuple[float, float, float]
    aspect: tuple[float, float, float]
    boxes_by_class: dict[str, int]
    anchors: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a data set."""

    name: str
    size: int
    splits: list[SplitSummary]
    problems: list[Problem]
    looked_at: str  # what was done, for the last line

    def count(self, severity: Severity) -> int:
        """How many kinds of problems there are of this severity."""
        return sum(problem.about.severity == severity for problem in self.problems)

    def failed(self, *, strict: bool) -> bool:
        """Whether there are errors; warnings count as such when `strict`."""
        return self.count("error") > 0 or (strict and self.count("warning") > 0)

    def as_dict(self) -> dict[str, Any]:
        """What json can hold."""
        return {
            "data": self.name,
            "size": self.size,
            "looked_at": self.looked_at,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "splits": [asdict(split) for split in self.splits],
            "problems": [
                {"kind": p.kind, "severity": p.about.severity, "count": p.count, "of": p.about.of}
                | {"total": p.total, "share": p.share, "advice": p.about.advice}
                | {"examples": list(p.examples)}
                for p in self.problems
            ],
        }

    def text(self) -> str:
        """The table for the terminal."""
        lines = [f"{self.name}: {len(self.splits[0].boxes_by_class)} classes; at {self.size} px"]
        header = (
            "split",
            "images",
            "labelled",
            "boxes",
            "crowds",
            "side 5/50/95 %",
            "w/h 5/50/95 %",
        )
        lines.append("  {:<6}{:>9}{:>10}{:>10}{:>8}  {:>17}  {:>16}".format(*header))
        for s in self.splits:
            side = " / ".join(f"{value:.0f}" for value in s.side)
            aspect = " / ".join(f"{value:.2f}" for value in s.aspect)
            lines.append(
                f"  {s.split:<6}{s.images:>9,}{s.labelled:>10,}{s.boxes:>10,}{s.crowds:>8,}"
                f"  {side:>17}  {aspect:>16}"
            )
        for s in self.splits:
            counts = list(s.boxes_by_class.items())
            ends = counts if len(counts) <= 6 else [*counts[:3], ("...", None), *counts[-3:]]
            words = ", ".join(name if n is None else f"{name} {n:,}" for name, n in ends)
            lines.append(f"  {s.split}, boxes by class: {words}")
        lines += [f"  {s.split}, anchors: {s.anchors}" for s in self.splits if s.anchors]
        for p in self.problems:
            share = f"{p.share:.1%}" if p.share >= 0.001 else "< 0.1%"
            count = f"{p.count:,} of {p.total:,} {p.about.of}"
            lines.append(f"{p.about.severity:<8} {p.kind:<28} {count:>32} {share:>7}")
            lines += [f"           {example}" for example in p.examples[:SHOWN]]
            if p.count > SHOWN:
                lines.append(f"           ... and {p.count - SHOWN:,} more")
            lines.append(f"         > {p.about.advice}")
        lines.append(
            f"{self.count('error')} kinds of errors, {self.count('warning')} of warnings; "
            f"{self.looked_at}"
        )
        return "\n".join(lines)


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a kind, errors before warnings, each as in `KINDS`; unknown kinds last.

    What readers leave out no check sees again, so that counts add up. What they tell of but keep
    (`KEPT_KINDS`) the checks find, too: the larger count has the other in it.
    """
    joined: dict[str, Problem] = {}
    for problem in problems:
        before = joined.setdefault(problem.kind, problem)
        if before is not problem and problem.kind in KEPT_KINDS:
            joined[problem.kind] = max(before, problem, key=lambda each: each.count)
        elif before is not problem:
            count, total = before.count + problem.count, max(before.total, problem.total)
            examples = chain(before.examples, problem.examples)
            joined[problem.kind] = Problem.collect(problem.kind, count, total, examples)
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(
        joined.values(), key=lambda p: (p.about.severity != "error", place.get(p.kind, len(place)))
    )
