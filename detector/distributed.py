"""The ranks of a distributed training job and what they exchange.

`torchrun --nproc-per-node 2 tools/train.py ...` starts them; they communicate over gloo on CPUs and
over NCCL on GPUs. Small values (a flag, a count of boxes) always go over gloo from the CPU, which
spares a GPU synchronisation.
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

TIMEOUT = timedelta(minutes=30)  # an evaluation on rank 0 may take as long


class ProcessGroup:
    """The ranks of a run, seen from one of them. `ProcessGroup()` is a single rank.

    Attributes:
        rank: of this process, from 0; rank 0 writes the files.
        world_size: number of ranks.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @classmethod
    def initialize(cls) -> "ProcessGroup":
        """Joins the job that torchrun started this process for; a single rank otherwise.

        Raises:
            UserError: fewer GPUs than ranks on this machine.
        """
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if world_size == 1 or not distributed.is_available():
            return cls()
        rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            if local_rank >= gpus:
                ranks = os.environ.get("LOCAL_WORLD_SIZE", "?")
                raise UserError(
                    f"torchrun started {ranks} ranks on this machine, which has {gpus} "
                    f"GPU{'s' if gpus > 1 else ''}; use --nproc-per-node {gpus}, or hide the GPUs "
                    f"(CUDA_VISIBLE_DEVICES=) to train on the CPU"
                )
            torch.cuda.set_device(local_rank)
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps its store when it restarts a job; keys of the previous attempt are stale
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=PrefixStore(f"attempt {attempt}", store),
            rank=rank,
            world_size=world_size,
            timeout=TIMEOUT,
        )
        return cls(rank, world_size)

    def explain_error(self, error: RuntimeError) -> UserError | None:
        """The cause of a failed collective: another rank has exited. None for any other error."""
        text = str(error)
        lost = any(word in text for word in ("gloo", "NCCL", "Connection reset", "closed by peer"))
        if self.world_size == 1 or not lost:
            return None
        return ProcessLost(
            f"rank {self.rank} of {self.world_size} lost its connection to another rank and stops; see "
            f"above, or torchrun's report below, for why that rank failed"
        )

    def destroy(self) -> None:
        """Leaves the job; to be called on every rank."""
        if self.world_size > 1:
            distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[T]:
        """This rank's share of the items: every `world_size`-th one, from number `rank` on."""
        return list(items[self.rank :: self.world_size])

    def all_gather(self, values: Tensor) -> Tensor:
        """[n] of each rank -> [world_size, n] on the device of `values`."""
        if self.world_size == 1:
            return values[None]
        own = values.detach().cpu()
        parts = [torch.empty_like(own) for _ in range(self.world_size)]
        distributed.all_gather(parts, own)
        return torch.stack(parts).to(values.device)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over the ranks, added in the order of ranks: the same bits on each of them."""
        if self.world_size == 1:
            return values
        return self.all_gather(values.reshape(-1)).sum(0).view_as(values)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce(torch.tensor([int(flag)])))

    def gather_objects(self, value: T) -> list[T]:
        """The values of all ranks, by rank; on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, 0)
        return box[0]

    def broadcast_on_node(self, value: T) -> T:
        """The value of the first rank on this machine."""
        node = os.environ.get("GROUP_RANK", "0")  # torchrun's number of the machine
        values = dict[str, T]()
        for other, each in self.gather_objects((node, value)):
            values.setdefault(other, each)
        return values[node]

    def replicate(self, model: nn.Module, *, shared_statistics: bool) -> nn.Module:
        """The model wrapped in DistributedDataParallel, which averages gradients over the ranks; the
        model itself on a single rank.

        Args:
            model: on its device.
            shared_statistics: BatchNorm's statistics are already those of all ranks, so that buffers
                need no broadcast.
        """
        if self.world_size == 1:
            return model
        replicate = nn.parallel.DistributedDataParallel
        device = next(model.parameters()).device
        known = inspect.signature(replicate).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync: not shared_statistics}  # since torch 2.14, and before
        ids = [device.index] if device.type == "cuda" else None
        return replicate(model, device_ids=ids, gradient_as_bucket_view=True, **options)
