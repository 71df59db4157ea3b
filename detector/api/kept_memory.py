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

    Parameters do not count; a tensor that several operators keep counts once.
    """
    batch = trainer.hardware.move(batch)
    with trainer.hardware.autocast():
        raw = trainer.model(scale_images(batch.images))
    losses = trainer.criterion(raw, batch, lambda count: count)
    own = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept, seen = Counter[str](), set(own)
    for node in _walk(torch.stack(list(losses.values())).sum().grad_fn):
        for tensor in _saved_tensors(node):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                kept[node.name().removesuffix("0").removesuffix("Backward")] += storage.nbytes()
    return dict(kept.most_common())


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
