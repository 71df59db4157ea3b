"""Resuming a training run: finding its folder, and checking that its config and data are the same."""

from pathlib import Path

from detector.api.run_request import RunRequest
from detector.api.summary import require_same_classes, require_same_data
from detector.api.training_run import TrainingRun
from detector.build import describe_data
from detector.config import Config, changed_keys, config_from_dict, load_config
from detector.engine import ProcessGroup, RunFolder, load_newest
from detector.errors import UserError

NEWEST = ""  # in place of a folder: the newest run


def find_resumable_run(
    resume: str | None, request: RunRequest | None, process_group: ProcessGroup
) -> RunFolder | None:
    """The folder of the run to resume; None if a new run starts.

    Args:
        resume: a run folder or a checkpoint in one, or `NEWEST`: the newest run of the request or,
            without a request, of `runs/`. None resumes only what torchrun has restarted in this job.
        request: the run that the command line describes, if it does.
        process_group: all ranks get the folder that the main one sees.

    Raises:
        UserError: `runs/` holds no run to resume.
    """
    if resume:
        path = Path(resume)
        return RunFolder(path.parent if path.suffix == ".pt" else path)
    if request is None:
        return process_group.broadcast(RunFolder.find_newest(Path("runs")))
    find = RunFolder.find_by_job if resume is None else RunFolder.find_newest_named
    return process_group.broadcast(find(request.folder))


def resume_run(
    folder: RunFolder, process_group: ProcessGroup, wanted: Config | None = None
) -> TrainingRun:
    """Builds a run in the state that its last checkpoint holds.

    Args:
        folder: of the run; locked from here on.
        process_group: the ranks that train together; their number may have changed.
        wanted: the config that the run is expected to have; None accepts any.

    Raises:
        UserError: no training state, another config than `wanted`, other data than before, or another
            process trains in the folder.
    """
    if process_group.is_main and folder.path.is_dir():
        folder.lock()  # before reading its state
    state, path, damaged = load_newest(folder.last, folder.previous)
    source = str(path)
    if state.get("training") is None:
        raise UserError(f"{source}: it holds weights only; a run resumes from its last.pt")
    # runs before there were recipes have published ones; their other keys are all set
    config = config_from_dict({"recipe": "resolved", **state["config"]}, source)
    if wanted is not None:
        require_same_config(folder, config, wanted)
    run = TrainingRun(config, process_group)
    require_same_classes(source, state["names"], run.data.names)
    run.report(damaged, *find_config_edits(folder, config))
    now = describe_data(run.data)
    run.report(*require_same_data(source, state.get("data") or {}, now))
    run.report(*run.trainer.load_state_dict(state["training"], source))
    progress = run.trainer.progress
    progress.chunks = max(progress.chunks, process_group.broadcast(folder.num_chunks))
    if not run.trainer.finished:
        print(f"resuming in epoch {progress.epoch + 1} after batch {progress.batch}")
    return run


def require_same_config(folder: RunFolder, config: Config, wanted: Config) -> None:
    """Checks that a run has the settings that a command line asks for.

    Raises:
        UserError: it has others.
    """
    changed = changed_keys(config, wanted)
    if changed:
        raise UserError(
            f"{folder.path}: its settings differ from this command's ({'; '.join(changed)}); give the "
            f"same settings, or start a new run without --resume"
        )


def find_config_edits(folder: RunFolder, config: Config) -> list[str]:
    """A line if a run's config.yaml was edited, which has no effect."""
    try:
        changed = changed_keys(config, load_config(str(folder.config)))
    except UserError as error:
        changed = [str(error)]
    if not changed:
        return []
    return [
        f"{folder.config} is ignored when a run resumes; the settings in its checkpoint count "
        f"({'; '.join(changed)})"
    ]
