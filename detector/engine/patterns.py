"""Parts of a model by name: what `train.freeze` and `train.lr_groups` mean by `backbone`."""

from fnmatch import fnmatchcase

from torch import nn

from detector.errors import UserError
from detector.registry import nearest


def match_parameters(model: nn.Module, pattern: str, key: str) -> dict[str, nn.Parameter]:
    """The parameters of the parts that a pattern names.

    Args:
        model: whose dotted names are meant, as its state dict has them.
        pattern: a part or a parameter: `backbone`, `neck.spp`, `backbone.stage[12]`, `*.norm`; with
            `*`, `?` and `[...]` as in a shell, where `*` passes dots, too.
        key: of the config that holds the pattern, for the message.

    Raises:
        UserError: nothing has that name; names the nearest.
    """
    parameters = dict(model.named_parameters())
    found = {
        name: parameter
        for name, parameter in parameters.items()
        if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    }
    if not found:
        words = [name.split(".") for name in parameters]
        parts = list(dict.fromkeys(".".join(w[:n]) for w in words for n in range(1, len(w) + 1)))
        tops = ", ".join(dict.fromkeys(w[0] for w in words))
        raise UserError(
            f"{key}: no part is named {pattern!r}{nearest(pattern, parts)} (parts: {tops})"
        )
    return found
