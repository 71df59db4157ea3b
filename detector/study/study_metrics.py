"""What a study compares: the metrics of a detector, those of a classifier, and the training losses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from detector.errors import UserError
from detector.registry import nearest


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of results.csv.

    Attributes:
        name: of the column.
        title: in tables.
        share: whether it is in [0, 1] and shown in percent.
        lower_is_better: as of a loss.
    """

    name: str
    title: str
    share: bool = True
    lower_is_better: bool = False

    @property
    def factor(self) -> float:
        """What values are multiplied by where they are shown."""
        return 100.0 if self.share else 1.0

    @property
    def unit(self) -> str:
        """Of a difference, as it continues a sentence."""
        return ", in percentage points" if self.share else ""

    @property
    def is_training_loss(self) -> bool:
        """Whether it is a part of the loss of the last epoch."""
        return self.name.startswith("loss_")

    def format_value(self, value: float, digits: int = 1) -> str:
        """A value; a share in percent with this many decimals, anything else with three digits."""
        if math.isnan(value):
            return "none"
        return f"{100 * value:.{digits}f}" if self.share else f"{value:.3g}"

    def format_difference(self, value: float, sign: str = "+") -> str:
        """A difference of two values; of shares in percentage points."""
        if math.isnan(value):
            return "none"
        # adding 0.0 makes -0.0 a 0.0, so that no difference has no sign
        rounded = round(100 * value, 2) if self.share else float(f"{value:.3g}")
        return f"{rounded + 0.0:{sign}.2f}" if self.share else f"{rounded + 0.0:{sign}.3g}"

    def format_interval(self, ends: tuple[float, float] | None) -> str:
        """Both ends of an interval of a difference."""
        if ends is None or math.isnan(ends[0]):
            return "none"
        return f"{self.format_difference(ends[0])} to {self.format_difference(ends[1])}"


def _make_losses(*names: str) -> tuple[Metric, ...]:
    return tuple(Metric(f"loss_{name}", f"{name} loss", False, True) for name in names)


AP = Metric("AP", "AP")
DETECTION = (
    AP,
    *(Metric(name, name) for name in ("AP50", "AP75", "APs", "APm", "APl")),
    *_make_losses("box", "obj", "cls"),
)
CLASSIFICATION = (
    Metric("top1", "top-1"),
    Metric("top5", "top-5"),
    Metric("loss", "val loss", False, True),
    *_make_losses("cls"),
)


def find_metrics(rows: Iterable[dict[str, float]]) -> tuple[Metric, ...]:
    """Those of the networks whose rows of results.csv these are; the first is the verdict's."""
    return CLASSIFICATION if any("top1" in row for row in rows) else DETECTION


def choose_metric(metrics: Sequence[Metric], name: str | None) -> Metric:
    """The metric of a verdict, by its name or title; the first by default.

    Raises:
        UserError: there is no such metric.
    """
    names = [metric.name for metric in metrics]
    for metric in metrics:
        if name in (None, metric.name, metric.title):
            return metric
    hint = nearest(str(name), names)
    raise UserError(f"--metric {name}: no such metric{hint} (these runs have {', '.join(names)})")
