"""COCO's numbers in words: models compared in the paper's columns, and JSON's dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from detector.evaluation.coco_ap import METRICS

Bounds = Sequence[tuple[float, float] | None]  # of each number; None where there is none
PAPER = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the columns of the papers


@dataclass(slots=True)
class ModelResult:
    """One model of a comparison.

    Attributes:
        source: its weights or results file.
        detector, activation: what it is; - where a results file does not say.
        metrics: the twelve numbers. bounds: their intervals, where asked for.
        difference: to the first model, and its paired interval, where asked for.
        about: what else goes into the JSON: size, precision, evaluator ...
    """

    source: str
    detector: str
    activation: str
    metrics: dict[str, float]
    bounds: Bounds | None = None
    difference: list[tuple[float, tuple[float, float] | None]] | None = None
    about: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        """All of it; numbers without anything to judge are null."""
        values: dict[str, Any] = {
            "source": self.source,
            "detector": self.detector,
            "activation": self.activation,
            **self.about,
            "metrics": {n: v if v >= 0 else None for n, v in self.metrics.items()},
        }
        if self.bounds is not None:
            values["interval_95"] = dict(zip(METRICS, self.bounds, strict=True))
        if self.difference is not None:
            values["difference_to_first"] = {
                name: {"difference": value, "interval_95": bounds}
                for name, (value, bounds) in zip(METRICS, self.difference, strict=True)
            }
        return values


def compare(rows: Sequence[ModelResult]) -> str:
    """A table with the paper's columns, in percent; intervals and differences to the first below it."""
    head = ["Detector", "Activation", *PAPER, "from"]
    cells = [head]
    for row in rows:
        values = [_percent(row.metrics[name]) for name in PAPER]
        cells.append([row.detector, row.activation, *values, row.source])
        if row.bounds is not None:
            bounds = dict(zip(METRICS, row.bounds, strict=True))
            cells.append(["", "  95 % from", *(_bound(bounds[name], 0) for name in PAPER), ""])
            cells.append(["", "         to", *(_bound(bounds[name], 1) for name in PAPER), ""])
    for row in rows:
        if row.difference is None:
            continue
        change = dict(zip(METRICS, row.difference, strict=True))
        cells.append(
            [
                f"{row.detector} - first",
                "",
                *(f"{100 * change[n][0]:+.1f}" for n in PAPER),
                row.source,
            ]
        )
        cells.append(["", "  95 % from", *(_bound(change[n][1], 0, "+") for n in PAPER), ""])
        cells.append(["", "         to", *(_bound(change[n][1], 1, "+") for n in PAPER), ""])
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = []
    for line in cells:
        words = [
            word.rjust(width) if 2 <= column < 2 + len(PAPER) else word.ljust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= 0 else "none"


def _bound(bounds: tuple[float, float] | None, which: int, sign: str = "") -> str:
    return "none" if bounds is None else f"{100 * bounds[which]:{sign}.1f}"
