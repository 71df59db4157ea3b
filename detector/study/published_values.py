"""Values of a publication, printed beside ours."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from detector.errors import UserError
from detector.study.study_metrics import CLASSIFICATION, DETECTION


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """One number of a table.

    Attributes:
        arm, metric: names.
        mean: over the published runs, or the value of the only one; a share in [0, 1].
        sd: standard deviation over the published runs, as a share; None if it is not published.
    """

    arm: str
    metric: str
    mean: float
    sd: float | None = None


class MeanAndDeviation(BaseModel):
    """A value that is published with its standard deviation over several runs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    mean: float
    sd: float


def _shape_of_value(value: Any) -> str:
    return "<mean and sd>" if isinstance(value, dict | MeanAndDeviation) else "<number>"


Value = Annotated[
    Annotated[float, Tag("<number>")] | Annotated[MeanAndDeviation, Tag("<mean and sd>")],
    Discriminator(_shape_of_value),
]


class Published(BaseModel):
    """Values of a publication as a study's YAML gives them.

    Attributes:
        source: where they were published, and of what data and how many runs they are.
        values: arm -> metric -> value, a share as a number in [0, 1]; or {mean: value, sd: deviation}.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    source: str
    values: dict[str, dict[str, Value]]

    def list_values(self) -> list[PublishedValue]:
        """All of them, in the order of the file."""
        listed = []
        for arm, values in self.values.items():
            for metric, value in values.items():
                if isinstance(value, MeanAndDeviation):
                    listed.append(PublishedValue(arm, metric, value.mean, value.sd))
                else:
                    listed.append(PublishedValue(arm, metric, value))
        return listed

    def require_names(self, arms: Collection[str]) -> None:
        """Checks that each value is of an arm and a metric.

        Raises:
            UserError: names the value that is not.
        """
        metrics = [metric.name for metric in (*CLASSIFICATION, *DETECTION)]
        for value in self.list_values():
            if value.arm not in arms or value.metric not in metrics:
                raise UserError(
                    f"published: {value.arm}: {value.metric}: expected an arm of the study "
                    f"({', '.join(arms)}) and a metric ({', '.join(metrics)})"
                )
