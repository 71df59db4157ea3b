"""Parts of a model by name: what `train.freeze` and `train.lr_groups` mean by `backbone`."""

from fnmatch import fnmatchcase

from torch import nn

from detector.errors import UserError
from detector.registry import nearest


def parameters_named(model: nn.Module, pattern: str, key: str) -> dict[str, nn.Parameter]:
    """The parameters of the parts that a pattern names.

    Args:
        model: whose dotted names are meant, as its state dict has them.
        pattern: a part or a parameter: `backbone`, `neck.spp`, `backbone.stage[12]`, `*.norm`; with
            `*`, `?` and `[...]` as in a shell, where `*` passes dots, too.
        key: of the config that holds the pattern, for the message.

    Raises:
        UserError: nothing has that name; names the nearest.
    """
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    }
    if not found:
        parts = [name for name, part in model.named_modules() if name and any(part.parameters())]
        tops = [name for name, part in model.named_children() if any(part.parameters())]
        hint = nearest(pattern, parts)
        raise UserError(f"{key}: no part is named {pattern!r}{hint} (parts: {', '.join(tops)})")
    return found
