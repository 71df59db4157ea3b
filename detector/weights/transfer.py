"""From trained weights into a model to be trained: all that fits, and a table of what did not and why."""

import torch
from torch import nn

from detector.config import Config, replace_values
from detector.errors import UserError
from detector.weights.darknet import Weights

CONFIGURED = ("anchors",)  # tensors that the config decides, not the weights


def adopt_settings(config: Config, weights: Weights, num_classes: int) -> Config:
    """The config with what travels with weights: BatchNorm eps, and with the head the decoder.

    What the config says itself stays.
    """
    own, theirs = config.model, weights.config.model
    changes: dict[str, object] = {"model.bn_eps": own.bn_eps or theirs.bn_eps}
    if len(weights.names) == num_classes:
        changes["model.decoder"] = own.decoder or theirs.decoder
    return replace_values(config, changes)


def transfer(model: nn.Module, weights: Weights, num_classes: int) -> str:
    """Copies into a model every tensor of the same name and shape; returns the table to print.

    Args:
        model: to be trained, in the CPU's memory.
        weights: complete, or the first part of a network.
        num_classes: of the model.

    Raises:
        UserError: nothing fits.
    """
    own = {name: t for name, t in model.state_dict().items() if name not in CONFIGURED}
    loaded: dict[str, int] = {}
    total: dict[str, int] = {}
    why: dict[str, dict[str, int]] = {}
    with torch.no_grad():
        for name, tensor in own.items():
            part = name.split(".")[0]
            total[part] = total.get(part, 0) + 1
            theirs = weights.tensors.get(name)
            if theirs is not None and theirs.shape == tensor.shape:
                tensor.copy_(theirs)
                loaded[part] = loaded.get(part, 0) + 1
                continue
            reason = _reason(name, tensor, theirs, len(weights.names), num_classes)
            counts = why.setdefault(part, {})
            counts[reason] = counts.get(reason, 0) + 1
    if not any(loaded.get(part) for part in total):
        first = next(iter(next(iter(why.values()))))
        raise UserError(f"{weights.source}: nothing of it fits this network ({first})")
    lines = [f"weights from {weights.source}:", "  part       loaded       not loaded, and why"]
    for part, count in total.items():
        reasons = "; ".join(f"{n} {reason}" for reason, n in why.get(part, {}).items()) or "-"
        share = f"{loaded.get(part, 0)} of {count}"
        lines.append(f"  {part:<10} {share:<12} {reasons}")
    foreign = [n for n in weights.tensors if n not in own and n not in CONFIGURED]
    if foreign:
        lines.append(f"  left over in the file: {len(foreign)} tensors, the first {foreign[0]}")
    if _other_anchors(model, weights):
        lines.append("  anchors    the config's are kept; the weights were trained with others")
    return "\n".join(lines)


def _reason(
    name: str, own: torch.Tensor, theirs: torch.Tensor | None, their_classes: int, classes: int
) -> str:
    if theirs is None:
        return "not in the file"
    per_class = their_classes != classes and own.shape[1:] == theirs.shape[1:]
    if per_class and own.shape[0] * (5 + their_classes) == theirs.shape[0] * (5 + classes):
        return f"for {their_classes} classes, here {classes}"
    return f"of another shape ({name}: {list(theirs.shape)}, here {list(own.shape)})"


def _other_anchors(model: nn.Module, weights: Weights) -> bool:
    theirs, own = weights.tensors.get("anchors"), model.state_dict().get("anchors")
    return theirs is not None and own is not None and not torch.equal(theirs, own)
