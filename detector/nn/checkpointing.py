"""Activation checkpointing: blocks keep their input alone, and the backward pass computes the rest again.

The numbers are the same to the bit; BatchNorm's running statistics are updated once.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

P = ParamSpec("P")
R = TypeVar("R")
B = TypeVar("B", bound="Checkpointable")

_thread = threading.local()  # a GPU's backward pass has a thread of its own


class Checkpointable(nn.Module):
    """A block whose `forward` is decorated with `checkpointed`.

    Attributes:
        keeps_input_only: in training; set by `use_checkpointing`.
    """

    keeps_input_only = False


def checkpointed(
    forward: Callable[Concatenate[B, P], R],
) -> Callable[Concatenate[B, P], R]:
    """Makes the forward pass of a block one that can keep its input alone."""

    @functools.wraps(forward)
    def run(self: B, *args: P.args, **kwargs: P.kwargs) -> R:
        if not (self.keeps_input_only and self.training and torch.is_grad_enabled()):
            return forward(self, *args, **kwargs)
        call: Any = functools.partial(forward, self)
        options: Any = {"use_reentrant": False, "context_fn": _make_contexts}
        return checkpoint(call, *args, **options, **kwargs)

    return run


def use_checkpointing(model: nn.Module) -> int:
    """Makes the outermost blocks of a model keep their input alone; returns their number."""
    if isinstance(model, Checkpointable):
        model.keeps_input_only = True
        return 1
    return sum(map(use_checkpointing, model.children()))


def is_recomputing() -> bool:
    """Whether a block computes its maps again: it must not update running statistics then."""
    return getattr(_thread, "recomputing", False)


def _make_contexts() -> tuple[Any, Any]:
    """The contexts of a block's first and second run."""
    return contextlib.nullcontext(), _recompute()


@contextlib.contextmanager
def _recompute() -> Iterator[None]:
    _thread.recomputing = True
    try:
        yield
    finally:
        _thread.recomputing = False
