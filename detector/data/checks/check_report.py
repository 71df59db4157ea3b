"""The report of a data set's checks, as a table and for json."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from detector.data.checks.problems import Problem, Severity

SHOWN_EXAMPLES = 3  # per kind, in the table


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """Statistics of one split.

    Attributes:
        side: 5th, 50th and 95th percentile of sqrt(width * height) of the boxes at the training size,
            pixels.
        aspect: the same percentiles of width / height.
        boxes_by_class: counts by name, the most frequent class first.
        anchors: how the model's anchors fit, if there is a model.
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
class DatasetReport:
    """The result of all checks of a data set.

    Attributes:
        name: of the data set. size: of the training image, pixels.
        scan: which images were decoded and how fast, for the last line.
    """

    name: str
    size: int
    splits: list[SplitSummary]
    problems: list[Problem]
    scan: str

    def count(self, severity: Severity) -> int:
        """The number of kinds of problems of this severity."""
        return sum(problem.properties.severity == severity for problem in self.problems)

    def failed(self, *, strict: bool) -> bool:
        """Whether there are errors or, if `strict`, warnings."""
        return self.count("error") > 0 or (strict and self.count("warning") > 0)

    def as_dict(self) -> dict[str, Any]:
        """The report for json."""
        return {
            "data": self.name,
            "size": self.size,
            "looked_at": self.scan,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "splits": [asdict(split) for split in self.splits],
            "problems": [
                {
                    "kind": p.kind,
                    "severity": p.properties.severity,
                    "count": p.count,
                    "of": p.properties.unit,
                }
                | {"total": p.total, "share": p.share, "advice": p.properties.advice}
                | {"examples": list(p.examples)}
                for p in self.problems
            ],
        }

    def text(self) -> str:
        """The table for the terminal."""
        return "\n".join(
            [
                f"{self.name}: {len(self.splits[0].boxes_by_class)} classes; at {self.size} px",
                *self._format_splits(),
                *self._format_problems(),
                f"{self.count('error')} kinds of errors, {self.count('warning')} kinds of warnings; "
                f"{self.scan}",
            ]
        )

    def _format_splits(self) -> Iterator[str]:
        row = "  {:<6}{:>9}{:>10}{:>10}{:>8}  {:>17}  {:>16}"
        columns = ("split", "images", "labelled", "boxes", "crowds")
        yield row.format(*columns, "size 5/50/95 %", "w/h 5/50/95 %")
        for s in self.splits:
            side = " / ".join(f"{value:.0f}" for value in s.side)
            aspect = " / ".join(f"{value:.2f}" for value in s.aspect)
            counts = [f"{n:,}" for n in (s.images, s.labelled, s.boxes, s.crowds)]
            yield row.format(s.split, *counts, side, aspect)
        for s in self.splits:
            counts = list(s.boxes_by_class.items())
            ends = counts if len(counts) <= 6 else [*counts[:3], ("...", None), *counts[-3:]]
            words = ", ".join(name if n is None else f"{name} {n:,}" for name, n in ends)
            yield f"  {s.split}, boxes by class: {words}"
        for s in self.splits:
            if s.anchors:
                yield f"  {s.split}, anchors: {s.anchors}"

    def _format_problems(self) -> Iterator[str]:
        for p in self.problems:
            share = f"{p.share:.1%}" if p.share >= 0.001 else "< 0.1%"
            count = f"{p.count:,} of {p.total:,} {p.properties.unit}"
            yield f"{p.properties.severity:<8} {p.kind:<28} {count:>32} {share:>7}"
            yield from (f"           {example}" for example in p.examples[:SHOWN_EXAMPLES])
            if p.count > SHOWN_EXAMPLES:
                yield f"           ... and {p.count - SHOWN_EXAMPLES:,} more"
            yield f"         > {p.properties.advice}"
