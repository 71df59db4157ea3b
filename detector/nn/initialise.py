"""Initialisers of weights, by name."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from detector.registry import Registry

INITIALISERS: Registry[Callable[[Tensor], object]] = Registry("initialiser")


@INITIALISERS.register("glorot_uniform", "xavier_uniform")
def _glorot_uniform(weight: Tensor) -> None:
    """Uniform, variance 2 / (inputs + outputs). Glorot and Bengio, 2010."""
    nn.init.xavier_uniform_(weight)


@INITIALISERS.register("glorot_normal", "xavier_normal")
def _glorot_normal(weight: Tensor) -> None:
    """Normal, variance 2 / (inputs + outputs). Glorot and Bengio, 2010."""
    nn.init.xavier_normal_(weight)


@INITIALISERS.register("lecun_normal")
def _lecun_normal(weight: Tensor) -> None:
    """Normal, variance 1 / inputs. LeCun et al., "Efficient BackProp", 1998."""
    nn.init.normal_(weight, std=math.sqrt(1 / weight[0].numel()))


@INITIALISERS.register("he_normal", "kaiming_normal")
def _he_normal(weight: Tensor) -> None:
    """Normal, variance 2 / inputs. He et al., "Delving Deep into Rectifiers", 2015."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


@INITIALISERS.register("he_uniform", "kaiming_uniform")
def _he_uniform(weight: Tensor) -> None:
    """Uniform, variance 2 / inputs. He et al., 2015."""
    nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def initialise_weights(model: nn.Module, name: str) -> None:
    """Draws the weights of every convolution and linear layer anew; biases and BatchNorms are kept.

    Args:
        model: to be changed.
        name: in `INITIALISERS`; every one ignores which activation follows.

    Raises:
        UserError: unknown name.
    """
    draw = INITIALISERS[name]
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            draw(module.weight)
