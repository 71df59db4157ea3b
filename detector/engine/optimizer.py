"""Optimisers over the recipe's three parameter groups.

Adding one is a function and a name in `OPTIMIZERS`; it takes the groups and what `sgd` takes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detector.engine.patterns import match_parameters
from detector.registry import Registry

OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that are learned, by what they are.

    Returns:
        "weight": of convolutions and other matrices, the only ones that decay; "gain": BatchNorm's
        gammas and learned values of activations; "bias": BatchNorm's betas and the heads' biases,
        which have a warm-up of their own. yolov4-pacsp has 115, 112 and 115 of them.
    """
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "gain": [], "bias": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.rsplit(".", 1)[-1] == "bias":
            groups["bias"].append(parameter)
        elif parameter.ndim > 1:
            groups["weight"].append(parameter)
        else:
            groups["gain"].append(parameter)
    return groups


def optimizer_groups(
    model: nn.Module, weight_decay: float, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """`parameter_groups` as an optimiser takes them, split where parts learn at another rate.

    Args:
        model: whose parameters.
        weight_decay: of the group "weight".
        factors: of the learning rate, by name pattern (see `match_parameters`); of several patterns
            that name a parameter the last counts, without one it is 1.

    Returns:
        Groups with their "name" ("weight", "gain" or "bias"), "factor" and "weight_decay".

    Raises:
        UserError: a pattern that names nothing.
    """
    factor_of: dict[nn.Parameter, float] = {}
    for pattern, factor in factors.items():
        found = match_parameters(model, pattern, "train.lr_groups")
        factor_of |= dict.fromkeys(found.values(), factor)
    groups: list[dict[str, Any]] = []
    for factor in dict.fromkeys([1.0, *factors.values()]):
        for name, parameters in parameter_groups(model).items():
            chosen = [each for each in parameters if factor_of.get(each, 1.0) == factor]
            decay = weight_decay if name == "weight" else 0.0
            if chosen:
                groups.append(
                    {"name": name, "params": chosen, "factor": factor, "weight_decay": decay}
                )
    return groups


@OPTIMIZERS.register("sgd")
def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.SGD:
    """Nesterov SGD over `optimizer_groups`."""
    return torch.optim.SGD(
        optimizer_groups(model, weight_decay, factors or {}),
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
    )


@OPTIMIZERS.register("adamw")
def adamw(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW over `optimizer_groups`; `momentum` is its first beta, the second is 0.999.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    return torch.optim.AdamW(
        optimizer_groups(model, weight_decay, factors or {}), lr=lr, betas=(momentum, 0.999)
    )
