"""A test module run as two processes, each of which leaves what it found in a file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def run_two(module: str, folder: Path) -> list[Any]:
    """What `python -m MODULE RANK FOLDER` saves as FOLDER/RANK.pt, of ranks 0 and 1 side by side."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), str(folder)],
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def meet(folder: Path, rank: int) -> None:
    """In each of the two: gloo, on one thread."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
