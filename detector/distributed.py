"""Several processes that train one model: who I am, and what we tell each other.

`torchrun --nproc-per-node 2 tools/train.py ...` starts them; on CPUs they speak gloo, on GPUs NCCL. What
is small (a flag, a count of boxes) always goes over gloo from the CPU, so that nobody waits for a GPU.
"""

import inspect
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from detector.errors import ProcessLost, UserError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # an evaluation by the first process may take as long


class ProcessGroup:
    """The processes of a run, seen from one of them. `ProcessGroup()` is one process alone.

    Attributes:
        rank: number of this one, from 0; number 0 writes the files.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls) -> "ProcessGroup":
        """Meets the others where torchrun started this process; alone otherwise.

        Raises:
            UserError: fewer GPUs than processes on this machine.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1 or not distributed.is_available():
            return cls()
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            if local >= gpus:
                here = os.environ.get("LOCAL_WORLD_SIZE", "?")
                raise UserError(
                    f"torchrun started {here} processes here, but there are {gpus} GPUs: use "
                    f"--nproc-per-node {gpus}, or hide the GPUs (CUDA_VISIBLE_DEVICES=)"
                )
            torch.cuda.set_device(local)
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps its store when it starts a job anew; what the last attempt left there is stale
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=PrefixStore(f"attempt {attempt}", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
        return cls(rank, size)

    def explain(self, error: RuntimeError) -> UserError | None:
        """What a failed exchange means: another process has ended. None for any other error."""
        text = str(error)
        lost = any(word in text for word in ("gloo", "NCCL", "Connection reset", "closed by peer"))
        if self.size == 1 or not lost:
            return None
        return ProcessLost(
            f"process {self.rank} of {self.size} has lost another one, and ends; why that one failed is "
            f"above, or in torchrun's report below"
        )

    def leave(self) -> None:
        """The end, for all of them."""
        if self.size > 1:
            distributed.destroy_process_group()

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of what has to be done: every `size`-th item."""
        return list(items[self.rank :: self.size])

    def each(self, values: Tensor) -> Tensor:
        """What each has, [n], as one tensor [processes, n] on the device of `values`."""
        if self.size == 1:
            return values[None]
        own = values.detach().cpu()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(parts, own)
        return torch.stack(parts).to(values.device)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, in the order of ranks: the same bits on each."""
        return values if self.size == 1 else self.each(values.reshape(-1)).sum(0).view_as(values)

    def any(self, flag: bool) -> bool:
        """Whether any of the processes says so."""
        return flag if self.size == 1 else bool(self.total(torch.tensor([int(flag)])))

    def gather(self, value: T) -> list[T]:
        """What each has, by rank, in every process."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def first(self, value: T) -> T:
        """What process 0 has."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, 0)
        return box[0]

    def first_here(self, value: T) -> T:
        """What the first process of this machine has."""
        node = os.environ.get("GROUP_RANK", "0")  # torchrun's number of the machine
        found = dict[str, T]()
        for other, each in self.gather((node, value)):
            found.setdefault(other, each)
        return found[node]

    def replicate(self, model: nn.Module, *, shared_statistics: bool) -> nn.Module:
        """The model, to be called in place of itself: its gradients are then the processes' means."""
        if self.size == 1:
            return model
        replicate = nn.parallel.DistributedDataParallel
        device = next(model.parameters()).device
        known = inspect.signature(replicate).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync: not shared_statistics}  # since torch 2.14, and before
        ids = [device.index] if device.type == "cuda" else None
        return replicate(model, device_ids=ids, gradient_as_bucket_view=True, **options)
