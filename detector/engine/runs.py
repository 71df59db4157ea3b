"""The folder of a run. An existing run is never overwritten."""

from dataclasses import dataclass
from pathlib import Path

from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run's files are."""

    path: Path

    @classmethod
    def create(cls, wanted: Path) -> "RunFolder":
        """Makes `wanted`, or `wanted-2`, `wanted-3` ... where there is such a folder with files.

        Raises:
            UserError: the folder cannot be made.
        """
        number = 1
        while True:
            path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if path.is_dir() and not any(path.iterdir()):
                    return cls(path)
                number += 1
                continue
            except OSError as error:
                raise UserError(f"{path}: cannot be made: {error.strerror}") from None
            return cls(path)

    @property
    def best(self) -> Path:
        """The averaged weights with the best AP so far."""
        return self.path / "best.pt"

    @property
    def last(self) -> Path:
        """Everything a resumed run needs."""
        return self.path / "last.pt"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def results(self) -> Path:
        """One row an epoch."""
        return self.path / "results.csv"
