"""Training as a function: one run, or one for each of several seeds."""

import statistics
from collections.abc import Sequence

from detector.api.resume import find_resumable_run, resume_run
from detector.api.run_request import RunRequest
from detector.api.training_run import TrainingRun, start_run
from detector.command_names import format_command
from detector.engine import Observer, ProcessGroup, RunFolder


def train(
    request: RunRequest | None,
    process_group: ProcessGroup,
    *,
    resume: str | None = None,
    limits: Sequence[Observer] = (),
    resume_words: Sequence[str] | None = None,
) -> float:
    """Starts a run, or resumes one, and returns the AP of its best weights.

    Args:
        request: the run; None resumes one as it is.
        process_group: the ranks that train together.
        resume: as in `find_resumable_run`.
        limits: observers that may stop the training early.
        resume_words: arguments of the command that resumes the run, which is printed when it stops
            early; `--resume FOLDER` by default.

    Raises:
        UserError: as `start_run`, `resume_run` and `TrainingRun.train_and_evaluate`.
    """
    run, folder = open_run(request, process_group, resume)
    words = ["--resume", str(folder.path)] if resume_words is None else resume_words
    hint = f"resume with: {format_command('train', *words)}"
    return run.train_and_evaluate(folder, limits, hint)


def open_run(
    request: RunRequest | None, process_group: ProcessGroup, resume: str | None
) -> tuple[TrainingRun, RunFolder]:
    """The run that `train` trains, started or resumed, and its folder; arguments as for `train`."""
    folder = find_resumable_run(resume, request, process_group)
    if folder is not None:
        return resume_run(folder, process_group, request.load_config() if request else None), folder
    assert request is not None, "find_resumable_run returns a folder or raises"
    run = start_run(request, process_group)
    return run, run.create_folder(request.folder)


def train_with_seeds(
    request: RunRequest,
    seeds: Sequence[int | str],
    process_group: ProcessGroup,
    *,
    resume: str | None = None,
    limits: Sequence[Observer] = (),
    resume_words: Sequence[str] | None = None,
) -> list[float]:
    """Trains one run per seed, one after the other; returns the AP of each. Arguments as for `train`."""
    return [
        train(
            request.with_seed(seed),
            process_group,
            resume=resume,
            limits=limits,
            resume_words=resume_words,
        )
        for seed in seeds
    ]


def format_seed_summary(
    seeds: Sequence[int | str], scores: Sequence[float], metric: str = "AP"
) -> str:
    """AP, or top-1 of a classifier, by seed; the mean and the sample standard deviation, in one line."""
    if min(scores) < 0:
        return f"{metric} by seed: none, since the validation split has no labelled object"
    spread = f", standard deviation {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    each = "  ".join(f"{s}: {score:.4f}" for s, score in zip(seeds, scores, strict=True))
    return f"{metric} by seed  {each}  mean {statistics.mean(scores):.4f}{spread}"
