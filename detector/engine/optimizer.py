"""SGD with the recipe's three parameter groups."""

import torch
from torch import nn


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters by what they are.

    Returns:
        "weight": of convolutions and other matrices, the only ones that decay; "gain": BatchNorm's
        gammas and learned values of activations; "bias": BatchNorm's betas and the heads' biases,
        which have a warm-up of their own. yolov4-pacsp has 115, 112 and 115 of them.
    """
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "gain": [], "bias": []}
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] == "bias":
            groups["bias"].append(parameter)
        elif parameter.ndim > 1:
            groups["weight"].append(parameter)
        else:
            groups["gain"].append(parameter)
    return groups


def sgd(model: nn.Module, *, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD over `parameter_groups`; each group carries its "name"."""
    groups = parameter_groups(model)
    return torch.optim.SGD(
        [
            {
                "name": name,
                "params": parameters,
                "weight_decay": weight_decay if name == "weight" else 0.0,
            }
            for name, parameters in groups.items()
            if parameters
        ],
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
    )
