"""The YAML that describes a data set (`data/*.yaml`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from detector.config import find_file, load_yaml_as
from detector.data.coco import LAYOUT, read_coco
from detector.data.digits import ensure_digits
from detector.data.index import Index
from detector.errors import UserError
from detector.registry import Registry

MAKERS: Registry[Callable[[Path], Path]] = Registry("data set maker")
MAKERS.register("digits")(ensure_digits)

SPLITS = ("train", "val")


class DatasetConfig(BaseModel):
    """The keys of a data YAML.

    Attributes:
        format: how the files are laid out.
        root: the folder, relative to the YAML.
        names: class names in the order of their labels; without them, the json's by category id.
        mirrors: whether a mirrored image is as good as the image; false switches flips off.
        make: the maker that creates the data set on first use.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["coco"] = "coco"
    root: str
    names: tuple[str, ...] | None = None
    mirrors: bool = True
    make: str | None = None


def describe(name: str) -> tuple[DatasetConfig, Path]:
    """A data YAML, by path or by its name in data/, and the folder of the data set.

    A data set that this toolkit can make is made if it is missing.

    Raises:
        UserError: no such YAML, a mistake in it, or no such folder.
    """
    path = find_file(name, "data")
    config = load_yaml_as(DatasetConfig, path)
    root = (path.parent / Path(config.root).expanduser()).resolve()
    if config.make is not None:
        MAKERS[config.make](root)
    if not root.is_dir():
        raise UserError(
            f"{path}: the data set's folder {root} does not exist; {LAYOUT}. "
            f"Set `root:` in the YAML or put the data there. "
            f"To try the toolkit without it: --data digits.yaml"
        )
    return config, root


def read_split(config: DatasetConfig, root: Path, split: str) -> Index:
    """The index of `train` or `val`."""
    assert split in SPLITS, f"split is one of {SPLITS}, not {split}"
    return read_coco(
        root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", config.names
    )
