"""Freezing parts of a model: no gradients, no weight decay, fixed BatchNorm statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detector.engine.patterns import match_parameters
from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class Frozen:
    """The frozen parts of a model.

    Attributes:
        num_parameters: number of frozen scalars, of `total`.
        total: number of all scalars in the model's parameters.
        norms: BatchNorms whose parameters are all frozen; they normalise with their running statistics
            and do not update them.
        parameters: the frozen ones.
        epochs: for how many they are; 0: for all.
    """

    num_parameters: int = 0
    total: int = 0
    norms: tuple[nn.Module, ...] = ()
    parameters: tuple[nn.Parameter, ...] = ()
    epochs: int = 0

    def ends_before(self, epoch: int) -> bool:
        """Whether epoch `epoch`, counted from 0, trains the whole model."""
        return 0 < self.epochs <= epoch

    def release(self) -> bool:
        """Lets the parameters be trained; returns whether they were frozen until now."""
        frozen = [parameter for parameter in self.parameters if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        return bool(frozen)

    def freeze_statistics(self) -> None:
        """Puts the frozen BatchNorms into evaluation mode; call it after each `model.train()`."""
        for norm in self.norms:
            norm.eval()

    def __str__(self) -> str:
        when = {0: "", 1: ", in the first epoch"}.get(
            self.epochs, f", in the first {self.epochs} epochs"
        )
        return (
            f"frozen: {self.num_parameters:,} of {self.total:,} parameters and the statistics of "
            f"{len(self.norms)} BatchNorms{when}"
        )


def freeze(
    model: nn.Module, patterns: Sequence[str], *, epochs: int = 0, key: str = "train.freeze"
) -> Frozen:
    """Freezes the parameters that match the patterns.

    Args:
        model: modified in place, before its optimizer is created; if `epochs` is set, after that, so
            that the optimizer has all parameters: it passes over those without a gradient.
        patterns: name patterns, see `match_parameters`.
        epochs: for how many; 0: for all.
        key: of the patterns in the config, for messages.

    Raises:
        UserError: a pattern matches nothing, or nothing is left to train.
    """
    for pattern in patterns:
        for parameter in match_parameters(model, pattern, key).values():
            parameter.requires_grad_(False)
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"{key}: {', '.join(patterns)} matches the whole model: nothing is left to train"
        )
    return Frozen(
        sum(p.numel() for p in parameters if not p.requires_grad),
        sum(p.numel() for p in parameters),
        tuple(
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            and module.weight is not None
            and not any(p.requires_grad for p in module.parameters())
        ),
        tuple(p for p in parameters if not p.requires_grad),
        epochs if patterns else 0,
    )
