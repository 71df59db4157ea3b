"""A study described in a YAML, such as configs/paper/table1.yaml: the options of `ablate`, by name."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from detector.config import AsWritten, find_file, load_yaml_as

Words = Annotated[tuple[str, ...], AsWritten()]


class Published(BaseModel):
    """Values of a publication, to print beside ours.

    Attributes:
        source: where they were published.
        values: arm -> metric -> value, a share as a number in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    source: str
    values: dict[str, dict[str, float]]


class StudyFile(BaseModel):
    """The options of `ablate` that a YAML may hold; an option of the command line replaces its own.

    Attributes:
        cfg, data, weights, vary, arm, baseline, within, seeds, metric: as the options.
        words: `key=value` for all arms, before those of the command line.
        published: values to print beside ours.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cfg: str
    data: str | None = None
    weights: str | None = None
    vary: tuple[str, ...] = ()
    arm: tuple[str, ...] = ()
    baseline: Annotated[str | None, AsWritten()] = None
    within: str | None = None
    seeds: Annotated[str | None, AsWritten()] = None
    metric: str | None = None
    words: Words = Field(default=())
    published: Published | None = None

    def list_published(self) -> tuple[tuple[str, str, float], ...]:
        """Arm, metric and value of each published number."""
        if self.published is None:
            return ()
        return tuple(
            (arm, metric, value)
            for arm, values in self.published.values.items()
            for metric, value in values.items()
        )


def read_study_file(name: str) -> StudyFile:
    """Reads a study by its path, or by its name in configs/: `paper/table1.yaml`.

    Raises:
        UserError: no such file, or all mistakes in it, one line each.
    """
    path: Path = find_file(name, "configs")
    return load_yaml_as(StudyFile, path)
