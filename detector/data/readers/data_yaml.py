"""The YAML that describes a data set (`data/*.yaml`): its keys and how it is loaded."""

import os
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from detector.config import (
    AsWritten,
    find_file,
    find_written,
    folder_of,
    is_of_windows,
    load_yaml_as,
    replace_values,
)
from detector.data.digits.folders import ensure_digit_folders
from detector.data.digits.generate import ensure_digits
from detector.data.readers.coco import LAYOUT
from detector.data.readers.torchvision_files import ARRAY_FORMATS
from detector.errors import UserError
from detector.registry import Registry, nearest

MAKERS: Registry[Callable[[Path], Path]] = Registry("data set maker")
MAKERS.register("digits")(ensure_digits)
MAKERS.register("digit-folders")(ensure_digit_folders)

Format = Literal["coco", "yolo", "voc", "folders", "cifar10", "cifar100", "mnist", "fashion_mnist"]
# Keys of other toolkits' data YAMLs that resemble ours; those that do not are ignored anyway.
FOREIGN = {"nc", "download", "minival", "kpt_shape", "flip_idx"}

EXPECTED = (
    "COCO (annotations/instances_train2017.json and train2017/, or `train: {images: FOLDER, annotations: "
    "JSON}`), YOLO txt (images/ and labels/), Pascal VOC (JPEGImages/, Annotations/ and "
    "ImageSets/Main/*.txt, or jpg and xml side by side)"
)


class JsonSplit(BaseModel):
    """A split in COCO's json: `{images: FOLDER, annotations: FILE}`, relative to `root`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    images: str
    annotations: str


def _tag_split(value: Any) -> str:
    if isinstance(value, dict | JsonSplit):
        return "<json>"
    return "<path>" if isinstance(value, str) else "<paths>"


Split = Annotated[
    Annotated[str, Tag("<path>")]
    | Annotated[tuple[str, ...], Field(min_length=1), Tag("<paths>")]
    | Annotated[JsonSplit, Tag("<json>")],
    Discriminator(_tag_split),
]


class DatasetConfig(BaseModel):
    """The keys of a data YAML; those of YOLO toolkits are read as they are.

    Attributes:
        format: how the files are laid out; without it, detected from the folder's content.
        root: the folder, relative to the YAML; `path` means the same. Default: the YAML's folder.
        train, val, test: what belongs to each split, relative to the folder. YOLO: a folder of images,
            a list file, or several. VOC: a list in ImageSets, a folder, or several. COCO: a folder
            of images and a json. Default: the usual places of each format.
        names: class names in the order of their labels, as a list or by number; optional for COCO and
            VOC, whose annotations contain them.
        mirrors: whether a mirrored object keeps its class; false switches flips off.
        make: name of a function in `MAKERS` that creates the data set on first use.
        voc_zero_based: VOC's coordinates count from 0; by its standard they count from 1.
        kpt_shape: keypoints that each line of YOLO's txt has after the box, and the numbers of each (2,
            or 3 with visibility); they are not read.
        polygons: lines of YOLO's txt with more than five numbers are polygons, not boxes with keypoints.
        ignored: keys of other toolkits that were in the file.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Format | None = None
    root: Annotated[str | None, AsWritten()] = None
    path: Annotated[str | None, AsWritten()] = None
    train: Annotated[Split | None, AsWritten()] = None
    val: Annotated[Split | None, AsWritten()] = None
    test: Annotated[Split | None, AsWritten()] = None
    names: Annotated[tuple[str, ...] | None, AsWritten()] = None
    mirrors: bool = True
    make: str | None = None
    voc_zero_based: bool = False
    kpt_shape: tuple[Annotated[int, Field(ge=1, le=1000)], Literal[2, 3]] | None = None
    polygons: bool = False
    ignored: tuple[str, ...] = Field(default=(), repr=False)

    @model_validator(mode="before")
    @classmethod
    def _set_foreign_keys_aside(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ignores unknown keys of YOLO-style YAMLs; near misses of our keys stay and raise an error."""
        if "root" in values or not {"train", "val", "path"} & set(values):
            return values
        known = list(cls.model_fields)
        foreign = {
            key
            for key in values
            if key not in known and (key in FOREIGN or not nearest(key, known))
        }
        kept = {key: value for key, value in values.items() if key not in foreign}
        return {**kept, "ignored": tuple(sorted(foreign))} if foreign else kept

    @model_validator(mode="after")
    def _check_folder(self) -> "DatasetConfig":
        if self.root is not None and self.path is not None:
            raise ValueError("`root` and `path` both mean the data set's folder; give only one")
        return self

    @field_validator("names", mode="before")
    @classmethod
    def _parse_names(cls, value: Any) -> Any:
        """Turns `{0: cat, 1: dog}` into a list; names are text as it is written."""
        if isinstance(value, dict):
            numbers = [str(number) for number in range(len(value))]
            missing = [number for number in numbers if number not in value]
            if missing:
                raise ValueError(
                    f"class {missing[0]} is missing; {len(value)} classes are numbered from 0 to "
                    f"{len(value) - 1}"
                )
            value = tuple(value[number] for number in numbers)
        if value is None:
            return value
        if not isinstance(value, tuple) or not value:
            raise ValueError("expected a list of class names: `[cat, dog]` or `{0: cat, 1: dog}`")
        for number, name in enumerate(value):
            if not isinstance(name, str) or not name.strip():
                shown = "no name" if name in (None, "") else f"the name {reprlib.repr(name)}"
                raise ValueError(f"class {number} has {shown}; expected text")
            if not _is_encodable(name):
                raise ValueError(f"class {number} has the name {name!r}, which cannot be printed")
        duplicates = [name for name in value if value.count(name) > 1]
        if duplicates:
            raise ValueError(f"duplicate class name {duplicates[0]!r}")
        return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def load_data_yaml(name: str) -> tuple[DatasetConfig, Path]:
    """Loads a data YAML, by path or by its name in data/, and finds the folder of the data set.

    A data set with a maker is created if it is missing.

    Raises:
        UserError: no such YAML, a mistake in it, or no such folder.
    """
    path = find_file(name, "data")
    config = load_yaml_as(DatasetConfig, path)
    root = _resolve_root(config, path)
    if config.make is not None:
        if config.make not in MAKERS:
            raise UserError(f"{path}: make: {config.make!r}; expected {' or '.join(MAKERS)}")
        MAKERS[config.make](root)
    if not _exists(root, folder=True) and config.format not in ARRAY_FORMATS:  # theirs names a file
        expected = LAYOUT if config.format == "coco" else f"expected there: {EXPECTED}"
        written = config.root or config.path or ""
        windows = " (a path of Windows)" if is_of_windows(written) and os.sep == "/" else ""
        raise UserError(
            f"{path}: the data set's folder {root} does not exist{windows}; {expected}. "
            f"Set `root:` in the YAML or put the data there. "
            f"To try the toolkit without it: --data digits.yaml"
        )
    written = {name: getattr(config, name) for name in ("train", "val", "test")}
    found = {name: _find_split(source, root) for name, source in written.items()}
    return (config if found == written else replace_values(config, found)), root


def _exists(path: Path, *, folder: bool = False) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except OSError:  # a name that is too long, or a parent that may not be entered
        return False


def _find_split(source: Any, root: Path) -> Any:
    r"""A split with its paths as they exist: `images\train` may be `images/train`."""
    if source is None:
        return None
    if isinstance(source, JsonSplit):
        return JsonSplit(
            images=_find_split(source.images, root),
            annotations=_find_split(source.annotations, root),
        )
    if isinstance(source, tuple):
        return tuple(_find_split(each, root) for each in source)
    return find_written(source, lambda written: _exists(root / written))


def _resolve_root(config: DatasetConfig, path: Path) -> Path:
    """The folder that a data YAML names, relative to the YAML."""
    base = folder_of(path, "data")

    def exists(written: str) -> bool:
        try:
            return _exists(base / Path(written).expanduser())
        except RuntimeError:  # no home folder, which is reported below
            return False

    folder = Path(find_written(config.root or config.path or ".", exists))
    try:
        return (base / folder.expanduser()).resolve()
    except RuntimeError:
        raise UserError(
            f"{path}: root: {folder} cannot be resolved: this user has no home folder; "
            f"write the full path"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: root: {folder}: {error.strerror}") from None
