"""Command lines that start training in a new process."""

import os
import sys
from pathlib import Path

import detector

MODULE = "detector.commands.train"  # not a path: an installed package has no tools/


def make_train_command(world_size: int = 1) -> list[str]:
    """Makes the command line that trains on `world_size` ranks, before its arguments."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size), "-m"]
    return [sys.executable, "-m", *(launcher if world_size > 1 else []), MODULE]


def make_train_environment() -> dict[str, str]:
    """Makes the environment in which that command imports this package, from any working directory."""
    root = str(Path(detector.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, known] if known else [root])}
