"""Values and derivatives of activations over a range, for plots and tables."""

import torch
from torch import Tensor

from detector.nn.activations import activation


def compute_curves(name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluates an activation and its first and second derivative.

    Args:
        name: in the registry; random activations are in evaluation mode, learned ones have their initial
        values.
        x: [n], float64.

    Returns:
        Three tensors [n], float64; derivatives by automatic differentiation.

    Raises:
        UserError: unknown name.
    """
    act = activation(name)(1).double().eval()
    x = x.detach().clone().requires_grad_()
    y = act((x * 1.0).view(-1, 1)).view(-1)  # a copy, since the activation may work in place
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    if not first.requires_grad:
        return y.detach(), first.detach(), torch.zeros_like(x)
    (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True, materialize_grads=True)
    return y.detach(), first.detach(), second.detach()
