"""A step with a non-finite loss or gradient: how it is detected, and what is reported about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.distributed import ProcessGroup
from detector.engine.micro_batch import MicroBatch, sum_losses

MAX_IDS = 16  # of images in a message; events.jsonl has all


def has_nonfinite_values(
    pending: Sequence[MicroBatch],
    norm: Tensor,
    process_group: ProcessGroup,
    *,
    scaled: bool,
) -> bool:
    """Whether a loss, or the gradient, is inf or nan on any rank; waits for the device.

    Args:
        pending: the micro-batches of the step.
        norm: of the gradient.
        process_group: the ranks that train together.
        scaled: the gradients are scaled for fp16: they may overflow, which the scaler itself handles.
    """
    values = [value.float() for micro_batch in pending for value in micro_batch.losses.values()]
    if not scaled:
        values.append(norm.float())
    finite = bool(torch.stack(values).isfinite().all())  # host sync: once a step
    return process_group.any(not finite)


@dataclass(frozen=True, slots=True)
class NonfiniteStep:
    """What is known about a non-finite step.

    Attributes:
        losses: mean losses over its images, formatted.
        norm: of the gradient, formatted.
        parameter: the parameter nearest to the loss with a non-finite gradient; "" if the loss itself is
            non-finite.
        image_ids: of the micro-batches with a non-finite loss; else of all.
    """

    losses: dict[str, str]
    norm: str
    parameter: str
    image_ids: list[int]

    def describe(self, place: str, lr: float) -> str:
        """The message: `place` names epoch and batch, `lr` is the learning rate of the step."""
        losses = ", ".join(f"{name} {value}" for name, value in self.losses.items())
        first = f", first in {self.parameter}" if self.parameter else ""
        return (
            f"non-finite loss or gradient ({place}: {losses}; gradient norm {self.norm}{first}; "
            f"lr {lr:.3g}; images {_format_ids(self.image_ids)})"
        )


def analyse_nonfinite_step(
    pending: Sequence[MicroBatch], norm: Tensor, model: nn.Module, process_group: ProcessGroup
) -> NonfiniteStep:
    """Collects losses and image ids from all ranks; to be called on every rank."""
    bad = [
        list(each.batch.image_ids)
        for each in pending
        if not torch.stack(list(each.losses.values())).isfinite().all()
    ]
    sums = [{name: float(v) for name, v in sum_losses([each], {}).items()} for each in pending]
    all_batches = [list(each.batch.image_ids) for each in pending]
    ranks = process_group.gather_objects((bad, sums, all_batches))
    ids = [i for bad_ids, _, _ in ranks for batch in bad_ids for i in batch]
    parameter = "" if ids else find_nonfinite_gradient(model)
    ids = ids or [i for _, _, all_ids in ranks for batch in all_ids for i in batch]
    images = sum(each.count for each in pending)
    losses = {
        name: f"{sum(batch[name] for _, batches, _ in ranks for batch in batches) / images:.4g}"
        for name in pending[0].losses
    }
    return NonfiniteStep(losses, f"{float(norm):.4g}", parameter, ids)


def find_nonfinite_gradient(model: nn.Module) -> str:
    """The parameter nearest to the loss whose gradient is non-finite; "" if all are finite."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return name
    return ""


def _format_ids(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:MAX_IDS]))
    return f"{shown} and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else shown
