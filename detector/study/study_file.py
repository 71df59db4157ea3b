"""A study described in a YAML, such as configs/paper/table1.yaml: the options of `ablate`, by name."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from detector.config import AsWritten, find_file, load_yaml_as
from detector.study.plan import Arm, parse_arm, parse_variations
from detector.study.published_values import Published, PublishedValue

Words = Annotated[tuple[str, ...], AsWritten()]


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

    def select_published(
        self, *, cfg: str, data: str | None, words: Sequence[str], arms: Collection[Arm]
    ) -> tuple[PublishedValue, ...]:
        """The published values that are of what a study trains: of its network, its data and its arms.

        None if the command line replaced the config or the data set of the file: a value beside one of
        other images would mislead.

        Args:
            cfg, data, words, arms: of the study.

        Raises:
            UserError: a value of no arm of the file, or of no metric.
        """
        if self.published is None:
            return ()
        own = [*parse_variations(self.vary), *map(parse_arm, self.arm)]
        self.published.require_names([arm.name for arm in own])
        replaced = any(word.startswith("data.dataset=") for word in words)
        if replaced or (cfg, data) != (self.cfg, self.data):
            return ()
        kept = {arm.name for arm in own if arm in arms}
        return tuple(value for value in self.published.list_values() if value.arm in kept)


def read_study_file(name: str) -> StudyFile:
    """Reads a study by its path, or by its name in configs/: `paper/table1.yaml`.

    Raises:
        UserError: no such file, or all mistakes in it, one line each.
    """
    path: Path = find_file(name, "configs")
    return load_yaml_as(StudyFile, path)
