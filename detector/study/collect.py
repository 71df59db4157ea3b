"""The numbers of a study, read from its run folders."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.engine import RunFolder
from detector.engine.observers.manifest import read_manifest
from detector.errors import UserError, read_regular_file
from detector.study.plan import Run, Study, find_run_folder

FINISHED = "finished"


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run has left so far.

    Attributes:
        run: of the study.
        rows: of results.csv, a dict per epoch; metrics that are undefined or were not evaluated are NaN.
        finished: whether it was trained to its end.
        peak_memory: bytes, of torch on a GPU and of the process on a CPU; NaN if unknown.
    """

    run: Run
    rows: list[dict[str, float]]
    finished: bool
    peak_memory: float = float("nan")

    def get_last(self, name: str) -> float:
        """A metric of the last epoch, or a loss; NaN without one."""
        return self.rows[-1].get(name, float("nan")) if self.rows else float("nan")

    def get_seconds(self) -> float:
        """The median time of an epoch, evaluation included; seconds, NaN without one."""
        return (
            float(np.median([row["seconds"] for row in self.rows])) if self.rows else float("nan")
        )


def collect_results(study: Study, folder: Path) -> list[RunResult]:
    """Reads what each run of the study has left, in the order of `Study.list_runs`.

    Raises:
        UserError: a results.csv cannot be read.
    """
    return [collect_run(run, find_run_folder(folder, run)) for run in study.list_runs()]


def collect_run(run: Run, folder: RunFolder) -> RunResult:
    """Reads what a run has left; no rows if it has not begun.

    Raises:
        UserError: its results.csv cannot be read.
    """
    sessions = read_manifest(folder.manifest).get("sessions") or [{}]
    peaks = [each["peak_memory"] for each in sessions if each.get("peak_memory")]
    rows = read_rows(folder.results) if folder.results.exists() else []
    finished = sessions[-1].get("outcome") == FINISHED and bool(rows)
    return RunResult(run, rows, finished, float(max(peaks)) if peaks else float("nan"))


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads a results.csv; a metric of -1, which COCO gives without ground truth, becomes NaN.

    Raises:
        UserError: it is not one.
    """
    content = read_regular_file(path).decode("utf-8", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(content, newline="")))
        values = [{name: float(text or "nan") for name, text in row.items()} for row in rows]
    except (ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: is not a results.csv of a run; delete the run's folder") from None
    return [{name: np.nan if x == -1 else x for name, x in row.items()} for row in values]


def count_epochs(folder: RunFolder) -> int:
    """The number of epochs that a run has finished; cheap, for its progress."""
    if not folder.results.exists():
        return 0
    return max(len(read_regular_file(folder.results).splitlines()) - 1, 0)


def make_score_table(study: Study, results: list[RunResult], name: str) -> np.ndarray:
    """A metric or loss of the last epoch, float64 [arms, pairs]; NaN where a run is not finished."""
    by_name = {result.run.name: result for result in results if result.finished}
    return np.array(
        [
            [
                by_name[key].get_last(name) if (key := Run(arm, *pair).name) in by_name else np.nan
                for pair in study.pairs
            ]
            for arm in study.arms
        ]
    )
