"""Optimizers over the recipe's three parameter groups.

A new one is a function with the arguments of `sgd`, registered in `OPTIMIZERS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detector.engine.patterns import match_parameters
from detector.registry import Registry

OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")


def group_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Groups the trainable parameters by kind.

    Returns:
        "weight": of convolutions and other matrices, the only group with weight decay; "gain":
        BatchNorm's gammas and parameters of activations; "bias": BatchNorm's betas and the heads'
        biases, which have their own warm-up. yolov4-pacsp has 115, 112 and 115 of them.
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


def build_param_groups(
    model: nn.Module, weight_decay: float, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Builds an optimizer's `param_groups` from `group_parameters`, split by learning-rate factor.

    Args:
        model: whose trainable parameters are optimised.
        weight_decay: of the group "weight"; 0 in the others.
        factors: name pattern (see `match_parameters`) -> factor of the learning rate; if several match
            a parameter, the last one applies, and if none does, 1.

    Returns:
        Groups with their "name" ("weight", "gain" or "bias"), "factor" and "weight_decay".

    Raises:
        UserError: a pattern matches nothing.
    """
    factor_of: dict[nn.Parameter, float] = {}
    for pattern, factor in factors.items():
        matched = match_parameters(model, pattern, "train.lr_groups")
        factor_of |= dict.fromkeys(matched.values(), factor)
    groups: list[dict[str, Any]] = []
    for factor in dict.fromkeys([1.0, *factors.values()]):
        for name, parameters in group_parameters(model).items():
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
    """Nesterov SGD over `build_param_groups`."""
    return torch.optim.SGD(
        build_param_groups(model, weight_decay, factors or {}),
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
    )


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.RMSprop:
    """RMSProp over `build_param_groups`, with momentum; the squares are averaged with 0.99.

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012.
    """
    return torch.optim.RMSprop(
        build_param_groups(model, weight_decay, factors or {}), lr=lr, momentum=momentum
    )


@OPTIMIZERS.register("adam")
def adam(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.Adam:
    """Adam over `build_param_groups`; `momentum` is its first beta, weight decay is part of the gradient.

    Source: Kingma and Ba, "Adam", 2015.
    """
    return torch.optim.Adam(
        build_param_groups(model, weight_decay, factors or {}), lr=lr, betas=(momentum, 0.999)
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
    """AdamW over `build_param_groups`; `momentum` is its first beta, the second is 0.999.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    return torch.optim.AdamW(
        build_param_groups(model, weight_decay, factors or {}), lr=lr, betas=(momentum, 0.999)
    )
