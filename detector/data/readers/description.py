"""The YAML that describes a data set (`data/*.yaml`), and its splits."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from detector.config import find_file, load_yaml_as
from detector.data.digits.digits import ensure_digits
from detector.data.readers.coco import LAYOUT, read_coco
from detector.data.readers.image_label_pairs import Pairs, fingerprint_pairs
from detector.data.readers.voc import pair_voc, read_voc
from detector.data.readers.yolo_txt import pair_yolo, read_yolo
from detector.data.store.image_files import SUFFIXES
from detector.data.store.index import Index, choose_classes, relabel
from detector.data.store.index_cache import Fingerprint, cached
from detector.errors import UserError
from detector.registry import Registry, nearest

MAKERS: Registry[Callable[[Path], Path]] = Registry("data set maker")
MAKERS.register("digits")(ensure_digits)

Format = Literal["coco", "yolo", "voc"]
SPLITS = ("train", "val", "test")
TITLES = {"coco": "COCO json", "yolo": "YOLO txt", "voc": "Pascal VOC"}
CACHED_FROM = 2_000  # images; fewer are read in a second
CACHED_JSON = 10_000_000  # bytes
# Keys of other toolkits' data YAMLs that look like misspelt ones of ours; further ones do not.
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


def _shape_of_split(value: Any) -> str:
    if isinstance(value, dict | JsonSplit):
        return "<json>"
    return "<path>" if isinstance(value, str) else "<paths>"


Split = Annotated[
    Annotated[str, Tag("<path>")]
    | Annotated[tuple[str, ...], Field(min_length=1), Tag("<paths>")]
    | Annotated[JsonSplit, Tag("<json>")],
    Discriminator(_shape_of_split),
]


class DatasetConfig(BaseModel):
    """The keys of a data YAML; those of YOLO toolkits are read as they are.

    Attributes:
        format: how the files are laid out; without it, it is told by what lies in the folder.
        root: the folder, relative to the YAML; `path` means the same. Default: the YAML's own.
        train, val, test: what belongs to each split, relative to the folder. YOLO: a folder of images,
            a list file, or several. VOC: a list in ImageSets, a folder, or several. COCO: a folder
            of images and a json. Without them, where each format usually has them.
        names: class names in the order of their labels, as a list or by number; COCO and VOC know them.
        mirrors: whether a mirrored image is as good as the image; false switches flips off.
        make: the maker that creates the data set on first use.
        voc_zero_based: VOC's boxes are corners counted from 0; its own count pixels from 1.
        kpt_shape: key points stand behind the box in each line of YOLO's txt; they are not read.
        ignored: keys of other toolkits that were in the file.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Format | None = None
    root: str | None = None
    path: str | None = None
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    names: tuple[str, ...] | None = None
    mirrors: bool = True
    make: str | None = None
    voc_zero_based: bool = False
    kpt_shape: tuple[int, ...] | None = None
    ignored: tuple[str, ...] = Field(default=(), repr=False)

    @model_validator(mode="before")
    @classmethod
    def _set_foreign_keys_aside(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A YAML in the manner of YOLO toolkits may have more keys; near misses stay for the errors."""
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
    def _one_folder(self) -> "DatasetConfig":
        if self.root is not None and self.path is not None:
            raise ValueError("`root` and `path` mean the same: the data set's folder; give one")
        return self

    @field_validator("names", mode="before")
    @classmethod
    def _names_in_order(cls, value: Any) -> Any:
        """`{0: cat, 1: dog}` as a list; numbers as words."""
        if isinstance(value, dict):
            numbers = [str(number) for number in range(len(value))]
            missing = [number for number in numbers if number not in value]
            if missing:
                raise ValueError(
                    f"names: number {missing[0]} is missing; {len(value)} classes are numbered 0 to "
                    f"{len(value) - 1}"
                )
            value = tuple(value[number] for number in numbers)
        if not isinstance(value, tuple):
            return value
        value = tuple(str(name) if type(name) in (int, float) else name for name in value)
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise ValueError(f"names: {twice[0]!r} stands twice")
        return value


def describe(name: str) -> tuple[DatasetConfig, Path]:
    """A data YAML, by path or by its name in data/, and the folder of the data set.

    A data set that this toolkit can make is made if it is missing.

    Raises:
        UserError: no such YAML, a mistake in it, or no such folder.
    """
    path = find_file(name, "data")
    config = load_yaml_as(DatasetConfig, path)
    folder = Path(config.root or config.path or ".").expanduser()
    root = (path.parent / folder).resolve()
    if config.make is not None:
        MAKERS[config.make](root)
    if not root.is_dir():
        expected = LAYOUT if config.format == "coco" else f"expected there: {EXPECTED}"
        raise UserError(
            f"{path}: the data set's folder {root} does not exist; {expected}. "
            f"Set `root:` in the YAML or put the data there. "
            f"To try the toolkit without it: --data digits.yaml"
        )
    return config, root


def read_split(
    config: DatasetConfig, root: Path, split: str, classes: tuple[str, ...] | None = None
) -> Index:
    """The index of `train`, `val` or `test`, of all its classes or of those named.

    Raises:
        UserError: no such split, a faulty whole, or an unknown class.
    """
    assert split in SPLITS, f"split is one of {SPLITS}, not {split}"
    form, why = recognise(config, root)
    place = _place(config, root, form, split)
    if place is None:
        raise UserError(
            f"{root}: no split `{split}` in the manner of {TITLES[form]} ({_usual(form, split)}); "
            f"name it in the data YAML: `{split}:`"
        )
    if form == "coco":
        assert isinstance(place, JsonSplit)
        index = _cached_coco(config, root, split, place)
    else:
        assert isinstance(place, tuple)
        index = _cached_pairs(config, root, form, split, place)
    if form == "voc" and config.names is None:
        index = _number_alike(config, root, split, index)
    notes = []
    if config.format is None:
        notes.append(
            f"{root}: read as {TITLES[form]} ({why}; `format: {form}` in the YAML says so)"
        )
    if config.ignored:
        notes.append(f"not used of the data YAML: {', '.join(config.ignored)}")
    index = replace(index, notes=tuple(notes))
    return index if classes is None else choose_classes(index, classes)


def annotation_file(config: DatasetConfig, root: Path, split: str) -> Path | None:
    """The json of a split in COCO's layout, there or not; None of other formats."""
    form, _ = recognise(config, root)
    place = _place(config, root, form, split)
    return root / place.annotations if isinstance(place, JsonSplit) else None


def splits(config: DatasetConfig, root: Path) -> list[str]:
    """The splits that the data set has."""
    form, _ = recognise(config, root)
    return [split for split in SPLITS if _place(config, root, form, split) is not None]


def recognise(config: DatasetConfig, root: Path) -> tuple[Format, str]:
    """The format, and how it is told.

    Raises:
        UserError: it cannot be told.
    """
    if config.format is not None:
        return config.format, "the YAML says so"
    said = next((s for s in (config.train, config.val, config.test) if s is not None), None)
    if isinstance(said, JsonSplit):
        return "coco", "a split of images and annotations"
    if said is not None:
        return _format_of(root / _as_tuple(said)[0])
    if any((root / "annotations").glob("*.json")):
        return "coco", "annotations/*.json"
    if (root / "Annotations").is_dir():
        return "voc", "Annotations/"
    for folder in ("labels", "train/labels", "images"):
        if (root / folder).is_dir():
            return "yolo", f"{folder}/"
    if any((root / split).is_dir() for split in SPLITS):
        return _format_of(next(root / split for split in SPLITS if (root / split).is_dir()))
    raise UserError(f"{root}: the format of the data cannot be told; expected {EXPECTED}")


def _format_of(path: Path) -> tuple[Format, str]:
    """The format of a folder of images or of a list of them."""
    if path.suffix == ".json":
        raise UserError(
            f"{path}: a json needs its folder of images: `train: {{images: FOLDER, annotations: JSON}}`"
        )
    if path.is_dir():
        if (path / "Annotations").is_dir():
            return "voc", f"Annotations/ in {path.name}"
        if any(inside.suffix == ".xml" for inside in path.iterdir()):
            return "voc", f"xml files in {path.name}/"
        return "yolo", f"images in {path.name}/"
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in islice(file, 100) if line.strip()]
        if "ImageSets" in path.parts or not any(line.lower().endswith(SUFFIXES) for line in lines):
            return "voc", f"names in {path.name}"
        return "yolo", f"image files in {path.name}"
    return "yolo", "a path in the YAML"  # that is not there, as its reader says best


def _as_tuple(said: str | tuple[str, ...]) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else said


def _usual(form: Format, split: str) -> str:
    """Where a format has a split, in words."""
    return " or ".join(_usual_places(form, split))


def _usual_places(form: Format, split: str) -> list[str]:
    if form == "coco":
        kinds = ["instances_test2017", "image_info_test-dev2017", "image_info_test2017"]
        names = kinds if split == "test" else [f"instances_{split}2017"]
        return [f"annotations/{name}.json" for name in names]
    if form == "voc":
        return [f"ImageSets/Main/{split}.txt", split]
    other = ["valid/images"] if split == "val" else []
    return [f"images/{split}", f"{split}/images", *other, split]


def _place(
    config: DatasetConfig, root: Path, form: Format, split: str
) -> JsonSplit | tuple[str, ...] | None:
    """Where a split is: as the YAML says, or where its format usually has it."""
    said: str | tuple[str, ...] | JsonSplit | None = getattr(config, split)
    if said is not None:
        if isinstance(said, JsonSplit) != (form == "coco"):
            form_needs = "{images: FOLDER, annotations: JSON}" if form == "coco" else "a path"
            raise UserError(f"{root}: `{split}:` of {TITLES[form]} has to be {form_needs}")
        return said if isinstance(said, JsonSplit) else _as_tuple(said)
    if any(getattr(config, other) is not None for other in SPLITS):
        return None  # a YAML that names splits names all it has
    usual = _usual_places(form, split)
    found = next((place for place in usual if (root / place).exists()), None)
    if form != "coco":
        return None if found is None else (found,)
    if split == "test" and found is None:
        return None
    return JsonSplit(images=f"{split}2017", annotations=found or usual[0])


def _cached_coco(config: DatasetConfig, root: Path, split: str, place: JsonSplit) -> Index:
    folder, json = root / place.images, root / place.annotations

    def fingerprint() -> Fingerprint:
        digest = hashlib.blake2b(json.read_bytes())
        for parent, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            digest.update(repr((parent, sorted(files))).encode("utf-8", "surrogateescape"))
        return Fingerprint(digest.hexdigest())

    return cached(
        root,
        split,
        (place, config.names),
        worth=json.is_file() and json.stat().st_size >= CACHED_JSON,
        fingerprint=fingerprint,
        read=lambda: read_coco(folder, json, config.names, labelled=split != "test"),
    )


def _number_alike(config: DatasetConfig, root: Path, split: str, index: Index) -> Index:
    """VOC without `names`: the classes of all splits, sorted, so that each split numbers them alike."""
    names = set(index.names)
    for other in SPLITS:
        place = _place(config, root, "voc", other)
        if other != split and isinstance(place, tuple):
            names |= set(_cached_pairs(config, root, "voc", other, place).names)
    return relabel(index, tuple(sorted(names)), np.arange(1, len(names) + 1))


def _cached_pairs(
    config: DatasetConfig, root: Path, form: Format, split: str, place: tuple[str, ...]
) -> Index:
    keypoints, zero_based, names = config.kpt_shape is not None, config.voc_zero_based, config.names
    if form == "yolo" and not names:
        raise UserError(
            f"{root}: YOLO's txt files number the classes; the data YAML has to name them: "
            f"`names: [cat, dog]`"
        )

    def read(pairs: Pairs) -> Index:
        if form == "voc":
            return read_voc(pairs, names, zero_based=zero_based)
        return read_yolo(pairs, names or (), keypoints=keypoints)

    pairs = (pair_yolo if form == "yolo" else pair_voc)(root, place, split)
    return cached(
        root,
        split,
        (form, place, names, keypoints, zero_based),
        worth=len(pairs.images) >= CACHED_FROM,
        fingerprint=lambda: fingerprint_pairs(pairs),
        read=lambda: read(pairs),
    )
