"""Parameters of a model by name pattern, for `train.freeze` and `train.lr_groups`."""

from fnmatch import fnmatchcase

from torch import nn

from detector.errors import UserError
from detector.registry import nearest


def match_parameters(model: nn.Module, pattern: str, key: str) -> dict[str, nn.Parameter]:
    """The parameters that a pattern matches, by name.

    Args:
        model: whose parameters are matched by the names in its state dict.
        pattern: a module or a parameter: `backbone`, `neck.spp`, `backbone.stage[12]`, `*.norm`; with
            `*`, `?` and `[...]` as in a shell, but `*` also matches dots.
        key: of the pattern in the config, for the message.

    Raises:
        UserError: it matches nothing; names the nearest module.
    """
    parameters = dict(model.named_parameters())
    matched = {
        name: parameter
        for name, parameter in parameters.items()
        if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    }
    if not matched:
        words = [name.split(".") for name in parameters]
        parts = list(dict.fromkeys(".".join(w[:n]) for w in words for n in range(1, len(w) + 1)))
        tops = ", ".join(dict.fromkeys(w[0] for w in words))
        raise UserError(
            f"{key}: no part is named {pattern!r}{nearest(pattern, parts)} (parts: {tops})"
        )
    return matched
