"""Descriptions of a study for schedulers: a Slurm array, an indexed Kubernetes Job; a shard a task."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detector.study.runner import GRACE

MARGIN = 60  # seconds that a task has beyond what its runs have to write their checkpoints


@dataclass(frozen=True, slots=True)
class Task:
    """What each task of a study does.

    Attributes:
        command: the command line, but for --shard.
        shards: the number of tasks.
        name: of the job.
        logs: the folder of what the tasks print.
        seconds: of the whole task; None leaves it to the scheduler.
        cpus, gpus: of each task.
    """

    command: Sequence[str]
    shards: int
    name: str
    logs: Path
    seconds: float | None = None
    cpus: int = 4
    gpus: int = 0

    def format_command(self, shard: str) -> str:
        """The command line of a task for a shell; `shard` is the shell's text for its number from 1."""
        return f'{shlex.join(self.command)} --shard "{shard}/{self.shards}"'


def make_sbatch_script(task: Task, *, folder: Path, python_path: str | None) -> str:
    """The script that `sbatch` takes: an array with a task for each shard.

    Slurm sends SIGTERM before the end of a task's time, at which its runs write checkpoints; submitted
    again, the same script resumes them.

    Args:
        task: what each does.
        folder: the working directory.
        python_path: put before PYTHONPATH, where the package is not installed.
    """
    lines = [
        f"--job-name={task.name}",
        f"--array=1-{task.shards}",
        f"--cpus-per-task={task.cpus}",
        f"--output={task.logs}/slurm-%A_%a.log",
        f"--signal=B:TERM@{round(GRACE) + MARGIN}",
        "--requeue",
        "--open-mode=append",
    ]
    lines += [f"--gpus={task.gpus}"] if task.gpus else []
    lines += [f"--time={_format_time(task.seconds)}"] if task.seconds is not None else []
    body = ["set -eu", f"cd {shlex.quote(str(folder))}"]
    if python_path is not None:
        body.append(f'export PYTHONPATH={shlex.quote(python_path)}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    # exec: Slurm sends the signal to the shell, which this makes the command itself
    body.append(f"exec {task.format_command('$SLURM_ARRAY_TASK_ID')}")
    head = [f"#SBATCH {line}" for line in lines]
    return "\n".join(["#!/bin/bash", *head, *body, ""])


def make_kubernetes_job(task: Task, *, image: str, claim: str, mount: str) -> str:
    """The YAML that `kubectl apply -f -` takes: an indexed Job with a pod for each shard.

    A pod that is evicted has the time to write checkpoints, and the one in its place resumes.

    Args:
        task: what each does; its paths are those in the container.
        image: of the container.
        claim: the persistent volume claim that all pods share.
        mount: where it is in the container; also the working directory.
    """
    limits: dict[str, Any] = {"cpu": task.cpus}
    limits |= {"nvidia.com/gpu": task.gpus} if task.gpus else {}
    container = {
        "name": "shard",
        "image": image,
        "workingDir": mount,
        "command": ["sh", "-c", f"exec {task.format_command('$((JOB_COMPLETION_INDEX + 1))')}"],
        "resources": {"limits": limits},
        "volumeMounts": [{"name": "studies", "mountPath": mount}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(GRACE) + MARGIN,
        "containers": [container],
        "volumes": [{"name": "studies", "persistentVolumeClaim": {"claimName": claim}}],
    }
    spec: dict[str, Any] = {
        "completions": task.shards,
        "parallelism": task.shards,
        "completionMode": "Indexed",
        "backoffLimit": 3 * task.shards,
        "template": {"spec": pod},
    }
    spec |= {"activeDeadlineSeconds": round(task.seconds)} if task.seconds is not None else {}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": task.name}, "spec": spec}
    return yaml.safe_dump(job, sort_keys=False, width=1000)


def _format_time(seconds: float) -> str:
    """Slurm's hours:minutes:seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
