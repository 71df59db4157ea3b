"""What a checkpoint may hold: plain values (`require_plain`), by name and type (`require_schema`).

A checkpoint may come from a stranger or from a broken disk, and its digest only says that it is as it
was written. These checks come first, so that no other code meets a value of another type.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)
from torch import Tensor

from detector.errors import UserError, raise_lost_worker

MAX_DEPTH = 32  # of nested containers; a run's own files have 6
MAX_VALUES = 10_000_000  # a run of 1,000 epochs on 100 ranks has 100,000

UNREADABLE = "not a checkpoint, a damaged one, or one that would run code when loaded"
REMEDY = "expected a best.pt or last.pt of a run"


@contextlib.contextmanager
def reading_checkpoint(source: Path | str, problem: str = UNREADABLE) -> Iterator[None]:
    """A context in which the content of a checkpoint is used, whatever its types, shapes and bytes.

    `problem` says what an unexpected exception means.

    Raises:
        UserError: in place of every exception; names the file. Memory of a GPU that runs out is not
            the fault of the file and is passed on.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UserError as error:
        if str(source) in str(error):
            raise
        raise UserError(f"{source}: {error}") from error
    except OSError as error:
        if error.strerror is None:
            raise UserError(f"{source}: {problem}; {REMEDY}") from error
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    except Exception as error:  # torch's reader raises whatever damaged bytes lead to
        raise_lost_worker(error)
        raise UserError(f"{source}: {problem}; {REMEDY}") from error


def require_plain(content: Any, source: Path | str) -> None:
    """Checks that a value consists of dicts, lists, tuples, texts, numbers and tensors of the file.

    Refused are, before anything is computed from them: tensors that claim more memory than the file
    holds, sparse and quantized ones and those of other devices; other types; containers that contain
    themselves or are nested too deeply; more than `MAX_VALUES` values, which shared containers can be.

    Raises:
        UserError: names the file.
    """
    try:
        size = _measure(content, 0, {})[0]
    except ValueError as error:
        raise UserError(f"{source}: malformed: {error}; {REMEDY}") from None
    if size > MAX_VALUES:
        raise UserError(f"{source}: malformed: it holds {size:,} values; {REMEDY}")


def _measure(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values in a container, and the depth of its nesting.

    `known` has those of the containers seen so far, by id, since a file can name one container millions
    of times.

    Raises:
        ValueError: something in it is not plain.
    """
    if isinstance(value, Tensor):
        _require_plain_tensor(value)
        return 1, 0
    if value is None or isinstance(value, bool | int | float | str):
        return 1, 0
    if not isinstance(value, dict | list | tuple):
        raise ValueError(f"a value of type {type(value).__name__}")
    if id(value) not in known:
        if depth > MAX_DEPTH:
            raise ValueError("containers nested without end")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str | int):
                    raise ValueError(f"a key of type {type(key).__name__}")
        items = value.values() if isinstance(value, dict) else value
        parts = [_measure(item, depth + 1, known) for item in items]
        known[id(value)] = 1 + sum(n for n, _ in parts), 1 + max((d for _, d in parts), default=0)
    size, height = known[id(value)]
    if depth + height > MAX_DEPTH + 1:
        raise ValueError("containers nested without end")
    return size, height


def _require_plain_tensor(tensor: Tensor) -> None:
    """Raises ValueError unless each number of a tensor is in memory that the file filled."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a tensor of another kind ({tensor.layout}, {tensor.device})")
    if tensor.dtype.is_complex or tensor.is_neg():
        raise ValueError(f"a tensor of type {tensor.dtype}")
    claimed = tensor.numel() * tensor.element_size()
    if claimed > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor that claims {claimed:,} bytes, which the file does not hold")


def _require_printable(text: str) -> str:
    text.encode()  # raises a ValueError for a lone surrogate, which no terminal and no file can show
    return text


class _Part(BaseModel):
    """Keys that are not listed are allowed: newer versions and users may add some."""

    model_config = ConfigDict(extra="allow", strict=True, arbitrary_types_allowed=True)


Count = Annotated[int, Field(ge=0, lt=2**63)]
Word32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Tensors = dict[str, Tensor]
Name = Annotated[str, AfterValidator(_require_printable)]


class _Darknet(_Part):
    """Header and order of the darknet file that the weights were read from."""

    header: tuple[Word32, Word32, Word32, Annotated[int, Field(ge=-(2**63), lt=2**63)]]
    order: str | None

    @model_validator(mode="before")
    @classmethod
    def _list_as_tuple(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("header"), list):  # pyright: ignore
            return {**values, "header": tuple(values["header"])}  # pyright: ignore
        return values  # pyright: ignore


class _Split(_Part):
    images: Count
    digest: str


class _Data(_Part):
    """`describe_data` of the run; empty in files of older versions."""

    train: _Split | None = None
    val: _Split | None = None

    @model_validator(mode="after")
    def _check_both(self) -> Self:
        missing = [name for name in ("train", "val") if getattr(self, name) is None]
        if missing and self.model_fields_set | (self.model_extra or {}).keys():
            raise ValueError(f"{missing[0]} is missing")
        return self


class _Generators(_Part):
    cpu: Tensor
    cuda: list[Tensor] = []
    python: list[Any] | None = None
    numpy: list[Any] | None = None


class _Optimizer(_Part):
    state: dict[int, dict[str, Any]]
    param_groups: Annotated[list[dict[str, Any]], Field(min_length=1)]


class _Progress(_Part):
    """The keys of `Progress.state_dict`; those that came after format 2 have defaults."""

    epoch: Count
    batch: Count
    best_ap: float
    stale: Count = 0
    totals: list[Tensors]
    images: Count
    seconds: float
    unreadable: list[InstanceOf[str]]  # paths: not every one is valid Unicode, as `str` requires
    history: list[dict[str, float]] = []
    skipped: Count = 0
    skipped_in_row: Count = 0
    parts: Annotated[int, Field(ge=1, lt=2**31)] = 1

    @model_validator(mode="after")
    def _check_totals(self) -> Self:
        if any(value.shape for totals in self.totals for value in totals.values()):
            raise ValueError("totals: expected one number per loss")
        return self


class _Training(_Part):
    model: Tensors
    average: Tensors
    optimizer: _Optimizer
    scaler: dict[str, float]
    generators: list[_Generators]
    progress: _Progress


class _Content(_Part):
    """A whole checkpoint; `config` is checked by its own schema."""

    config: dict[str, Any]
    names: Annotated[Sequence[Name], Field(min_length=1)]
    weights: Annotated[Tensors, Field(min_length=1)]
    darknet: _Darknet | None = None
    data: _Data | None = None
    metrics: dict[str, float] = {}
    epoch: Count = 0
    training: _Training | None = None


def require_schema(content: dict[str, Any], source: Path | str) -> None:
    """Checks that a checkpoint of the current format has what it must have, each of its type.

    Raises:
        UserError: names the file and the first key that is missing or of another type.
    """
    try:
        _Content.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise UserError(f"{source}: malformed: it has no {key!r}; {REMEDY}") from None
        problem = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        found = type(first["input"]).__name__
        raise UserError(
            f"{source}: malformed: {key!r} {problem}, but is a value of type {found}; {REMEDY}"
        ) from None


STATE_KEYS = {  # of each parameter, by optimizer
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.RMSprop: {"step", "square_avg"},
}


def fit_optimizer_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], source: Path | str
) -> dict[str, Any]:
    """The state of an optimizer, checked against its parameters: torch would fail in the next step only.

    Settings that the state does not have, since an older torch wrote it, are those of `optimizer`.

    Raises:
        UserError: groups, names, types or shapes differ.
    """

    def refuse(problem: str) -> UserError:
        return UserError(f"{source}: malformed: optimizer state of another model: {problem}")

    groups, own_groups = state["param_groups"], optimizer.state_dict()["param_groups"]
    if [group.get("params") for group in groups] != [group["params"] for group in own_groups]:
        raise refuse("its parameter groups differ")
    for group, own in zip(groups, own_groups, strict=True):
        for key in group.keys() & own.keys() - {"params"}:
            if not _is_alike(group[key], own[key]):
                raise refuse(f"{key!r} is a {type(group[key]).__name__}")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, values in state["state"].items():
        if not 0 <= number < len(parameters):
            raise refuse(f"it has no parameter {number}")
        missing = STATE_KEYS.get(type(optimizer), set()) - values.keys()
        if missing:
            raise refuse(f"parameter {number} has no {min(missing)!r}")
        for key, value in values.items():
            shape = parameters[number].shape if isinstance(value, Tensor) and value.ndim else ()
            if value is not None and (not isinstance(value, Tensor) or value.shape != shape):
                raise refuse(f"{key!r} of parameter {number} is not of its shape")
    filled = [{**own, **group} for group, own in zip(groups, own_groups, strict=True)]
    return {**state, "param_groups": filled}


def _is_alike(value: Any, own: Any) -> bool:
    """Whether a setting of an optimizer has the type that it has in a new one."""
    numbers = (int, float)
    if type(value) in numbers and type(own) in numbers:
        return True
    if isinstance(own, tuple | list) and isinstance(value, tuple | list):
        return len(own) == len(value) and all(map(_is_alike, value, own))
    return type(value) is type(own)
