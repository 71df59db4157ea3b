"""Transfer of trained weights into a model to be trained: every tensor that fits, a table of the rest."""

from collections import Counter

import torch
from torch import nn

from detector.config import Config, replace_values
from detector.errors import UserError
from detector.weights.darknet import Weights

CONFIGURED = ("anchors",)  # tensors that the config sets, not the weights


def adopt_settings(config: Config, weights: Weights, num_classes: int) -> Config:
    """The config with the weights' BatchNorm eps and, for the same number of classes, their decoder.

    With `recipe: auto` also their anchors. Values that the config sets take precedence.
    """
    own, theirs = config.model, weights.config.model
    changes: dict[str, object] = {"model.bn_eps": own.bn_eps or theirs.bn_eps}
    if len(weights.names) == num_classes:
        changes["model.decoder"] = own.decoder or theirs.decoder
        if config.recipe == "auto":
            changes["model.anchors"] = own.anchors or theirs.anchors or "published"
    return replace_values(config, changes)


def transfer(model: nn.Module, weights: Weights, num_classes: int) -> str:
    """Copies every tensor of the same name and shape into a model; returns a table of the result.

    Args:
        model: to be trained, in the CPU's memory.
        weights: of a whole network, or of its first layers.
        num_classes: of the model.

    Raises:
        UserError: no tensor fits.
    """
    own = {name: t for name, t in model.state_dict().items() if name not in CONFIGURED}
    loaded, total = Counter[str](), Counter[str]()  # tensors by part: backbone, neck, head
    skipped: dict[str, Counter[str]] = {}  # part -> reason -> tensors
    with torch.no_grad():
        for name, tensor in own.items():
            part = name.split(".")[0]
            total[part] += 1
            theirs = weights.tensors.get(name)
            if theirs is not None and theirs.shape == tensor.shape:
                tensor.copy_(theirs)
                loaded[part] += 1
            else:
                reason = _explain_mismatch(name, tensor, theirs, len(weights.names), num_classes)
                skipped.setdefault(part, Counter())[reason] += 1
    if not loaded:
        reason = next(iter(next(iter(skipped.values()))))
        raise UserError(f"{weights.source}: none of its weights fit this network ({reason})")
    lines = [f"weights from {weights.source}:", "  part       loaded       not loaded, and why"]
    for part, count in total.items():
        reasons = "; ".join(f"{n} {reason}" for reason, n in skipped.get(part, {}).items()) or "-"
        lines.append(f"  {part:<10} {f'{loaded[part]} of {count}':<12} {reasons}")
    unused = [name for name in weights.tensors if name not in own and name not in CONFIGURED]
    if unused:
        lines.append(f"  not used: {len(unused)} tensors of the file, the first {unused[0]}")
    if _anchors_differ(model, weights):
        lines.append(
            "  anchors    the config's are kept; the weights were trained with different ones"
        )
    return "\n".join(lines)


def _explain_mismatch(
    name: str, own: torch.Tensor, theirs: torch.Tensor | None, their_classes: int, classes: int
) -> str:
    if theirs is None:
        return "not in the file"
    per_class = their_classes != classes and own.shape[1:] == theirs.shape[1:]
    if per_class and own.shape[0] * (5 + their_classes) == theirs.shape[0] * (5 + classes):
        return f"for {their_classes} classes, here {classes}"
    return f"of another shape ({name}: {list(theirs.shape)}, here {list(own.shape)})"


def _anchors_differ(model: nn.Module, weights: Weights) -> bool:
    theirs, own = weights.tensors.get("anchors"), model.state_dict().get("anchors")
    return theirs is not None and own is not None and not torch.equal(theirs, own)
