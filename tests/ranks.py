"""Runs a module as two ranks, each of which saves its results to a file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def run_two(module: str, folder: Path) -> list[Any]:
    """Runs `python -m MODULE RANK FOLDER` for ranks 0 and 1; returns both FOLDER/RANK.pt."""
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
    """Joins the process group of two over gloo, on one thread; called by each rank."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
