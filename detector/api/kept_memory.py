"""The memory that a forward pass keeps for its backward pass."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from detector.device import scale_images
from detector.engine import Trainer
from detector.structures import Batch


def measure_kept_memory(trainer: Trainer, batch: Batch) -> dict[str, int]:
    """Bytes that the forward pass and the loss keep for the backward pass, by operator, largest first.

    Parameters do not count; a tensor that several operators keep counts once. With activation
    checkpointing the graph of a block does not exist yet: then the sum of all, by torch's profiler.
    """
    if any(getattr(module, "keeps_input_only", False) for module in trainer.model.modules()):
        return {"all": _measure_allocated(trainer, batch)}
    losses = _compute_losses(trainer, trainer.hardware.move(batch))
    own = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept, seen = Counter[str](), set(own)
    for node in _walk(losses.grad_fn):
        for tensor in _saved_tensors(node):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                kept[node.name().removesuffix("0").removesuffix("Backward")] += storage.nbytes()
    return dict(kept.most_common())


def _compute_losses(trainer: Trainer, batch: Batch) -> Tensor:
    """The sum of the losses of a batch on the device, with its graph."""
    with trainer.hardware.autocast():
        raw = trainer.model(scale_images(batch.images))
    losses = trainer.criterion(raw, batch, lambda count: count)
    return torch.stack(list(losses.values())).sum()


def _measure_allocated(trainer: Trainer, batch: Batch) -> int:
    """Bytes that are allocated, and not freed, while the losses are computed."""
    batch = trainer.hardware.move(batch)
    kind = "self_cpu_memory_usage" if batch.images.device.type == "cpu" else None
    with torch.profiler.profile(profile_memory=True) as profile:
        losses = _compute_losses(trainer, batch)
    events = profile.key_averages()
    del losses
    return sum(getattr(each, kind or "self_device_memory_usage") for each in events)


def _walk(node: Any) -> Iterator[Any]:
    """The nodes of the backward graph."""
    todo, seen = [node], set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo += [following for following, _ in node.next_functions]


def _saved_tensors(node: Any) -> Iterator[Tensor]:
    """The tensors that a node keeps, of torch's operators and of `autograd.Function`."""
    names = [name for name in dir(node) if name.startswith("_saved_")]
    values = [getattr(node, name) for name in names]
    values += list(getattr(node, "saved_tensors", ()))
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from (each for each in value if isinstance(each, Tensor))
