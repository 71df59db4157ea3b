"""Parts of a model that training leaves as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detector.engine.patterns import match_parameters
from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class Frozen:
    """What is frozen.

    Attributes:
        num_parameters: numbers that are not learned, of `total`.
        norms: BatchNorms whose parameters are all frozen; they normalise with the running statistics
            that they have, and do not change them.
    """

    num_parameters: int = 0
    total: int = 0
    norms: tuple[nn.Module, ...] = ()

    def freeze_statistics(self) -> None:
        """Keeps the statistics; to be called after `model.train()`, which wakes every BatchNorm."""
        for norm in self.norms:
            norm.eval()

    def __str__(self) -> str:
        return (
            f"frozen: {self.num_parameters:,} of {self.total:,} parameters; the statistics of "
            f"{len(self.norms)} BatchNorms stay"
        )


def freeze(model: nn.Module, patterns: Sequence[str], key: str = "train.freeze") -> Frozen:
    """Freezes the parts that the patterns name: no gradient, no decay, no new statistics.

    Args:
        model: changed in place; to be called before its optimiser is made.
        patterns: see `match_parameters`.
        key: of the config that holds them, for messages.

    Raises:
        UserError: a pattern that names nothing, or nothing left to train.
    """
    for pattern in patterns:
        for parameter in match_parameters(model, pattern, key).values():
            parameter.requires_grad_(False)
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"{key}: {', '.join(patterns)} is the whole model; nothing is left to train"
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
    )
