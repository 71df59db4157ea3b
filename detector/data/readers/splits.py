"""The splits of a data set: where they are, in which format, and their indices."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from detector.data.readers.coco import fingerprint_coco, read_coco
from detector.data.readers.data_yaml import EXPECTED, DatasetConfig, Format, JsonSplit
from detector.data.readers.image_folders import list_image_folders, read_image_folders
from detector.data.readers.image_label_pairs import Pairs, fingerprint_pairs
from detector.data.readers.torchvision_files import ARRAY_FORMATS, read_array_split
from detector.data.readers.voc import pair_voc, read_voc
from detector.data.readers.yolo_lines import LineFormat
from detector.data.readers.yolo_txt import pair_yolo, read_yolo
from detector.data.store.image_files import SUFFIXES
from detector.data.store.index import Index, choose_classes, relabel
from detector.data.store.index_cache import load_or_read
from detector.errors import UserError, reading

SPLITS = ("train", "val", "test")
TITLES = {
    "coco": "COCO json",
    "yolo": "YOLO txt",
    "voc": "Pascal VOC",
    "folders": "image folders",
    **{name: form.title for name, form in ARRAY_FORMATS.items()},
}
CACHED_FROM = 2_000  # images; fewer are read within a second
CACHED_JSON = 10_000_000  # bytes


def read_split(
    config: DatasetConfig, root: Path, split: str, classes: tuple[str, ...] | None = None
) -> Index:
    """Reads the index of `train`, `val` or `test`, with all classes or only `classes`.

    Raises:
        UserError: no such split, files that are not in its format or cannot be read, or an unknown class.
    """
    with reading(root):
        return _read_split(config, root, split, classes)


def _read_split(
    config: DatasetConfig, root: Path, split: str, classes: tuple[str, ...] | None
) -> Index:
    assert split in SPLITS, f"split is one of {SPLITS}, not {split}"
    form, why = detect_format(config, root)
    if form in ARRAY_FORMATS:
        index = _load_arrays(config, root, form, split)
        return index if classes is None else choose_classes(index, classes)
    place = _locate(config, root, form, split)
    if place is None:
        raise UserError(
            f"{root}: no split `{split}`; expected for {TITLES[form]}: "
            f"{' or '.join(_default_paths(form, split))}. "
            f"If it is elsewhere, give its path in the data YAML: `{split}:`"
        )
    if form == "coco":
        assert isinstance(place, JsonSplit)
        index = _load_coco(config, root, split, place)
    elif form == "folders":
        assert isinstance(place, tuple)
        index = _load_folders(config, root, split, place)
    else:
        assert isinstance(place, tuple)
        index = _load_pairs(config, root, form, split, place)
    if form == "voc" and config.names is None:
        index = _unify_classes(config, root, split, index)
    notes = []
    if config.format is None:
        notes.append(
            f"{root}: detected format {TITLES[form]} ({why}); `format: {form}` in the YAML sets it"
        )
    if config.ignored:
        notes.append(f"data YAML: ignored keys {', '.join(config.ignored)}")
    index = replace(index, notes=tuple(notes))
    return index if classes is None else choose_classes(index, classes)


def find_annotation_file(config: DatasetConfig, root: Path, split: str) -> Path | None:
    """The path of a split's COCO json, which may not exist; None for other formats."""
    with reading(root):
        form, _ = detect_format(config, root)
        place = None if form in ARRAY_FORMATS else _locate(config, root, form, split)
    return root / place.annotations if isinstance(place, JsonSplit) else None


def list_splits(config: DatasetConfig, root: Path) -> list[str]:
    """Names the splits that the data set has."""
    with reading(root):
        form, _ = detect_format(config, root)
        if form in ARRAY_FORMATS:
            return ["train", "val"]
        return [split for split in SPLITS if _locate(config, root, form, split) is not None]


def detect_format(config: DatasetConfig, root: Path) -> tuple[Format, str]:
    """Detects the format; returns it with the reason.

    Raises:
        UserError: no known format.
    """
    if config.format is not None:
        return config.format, "`format:` in the YAML"
    source = next((s for s in (config.train, config.val, config.test) if s is not None), None)
    if isinstance(source, JsonSplit):
        return "coco", "a split of images and annotations"
    if source is not None:
        return _detect_format_of_path(root / _as_tuple(source)[0])
    if any((root / "annotations").glob("*.json")):
        return "coco", "annotations/*.json"
    if (root / "Annotations").is_dir():
        return "voc", "Annotations/"
    for folder in ("labels", "train/labels", "images"):
        if (root / folder).is_dir():
            return "yolo", f"{folder}/"
    if any((root / split).is_dir() for split in SPLITS):
        return _detect_format_of_path(
            next(root / split for split in SPLITS if (root / split).is_dir())
        )
    raise UserError(f"{root}: unknown data format; expected {EXPECTED}")


def _detect_format_of_path(path: Path) -> tuple[Format, str]:
    """Detects the format of a folder of images or of a list of them."""
    if path.suffix == ".json":
        raise UserError(
            f"{path}: a COCO json needs its folder of images, too: "
            f"`train: {{images: FOLDER, annotations: JSON}}`"
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
    return "yolo", "a path in the YAML"  # which does not exist; its reader raises the error


def _as_tuple(source: str | tuple[str, ...]) -> tuple[str, ...]:
    return (source,) if isinstance(source, str) else source


def _default_paths(form: Format, split: str) -> list[str]:
    if form == "coco":
        kinds = ["instances_test2017", "image_info_test-dev2017", "image_info_test2017"]
        names = kinds if split == "test" else [f"instances_{split}2017"]
        return [f"annotations/{name}.json" for name in names]
    if form == "voc":
        return [f"ImageSets/Main/{split}.txt", split]
    if form == "folders":
        return [split]
    other = ["valid/images"] if split == "val" else []
    return [f"images/{split}", f"{split}/images", *other, split]


def _locate(
    config: DatasetConfig, root: Path, form: Format, split: str
) -> JsonSplit | tuple[str, ...] | None:
    """Where a split is: as the YAML says, or in the default place of its format."""
    source: str | tuple[str, ...] | JsonSplit | None = getattr(config, split)
    if source is not None:
        if isinstance(source, JsonSplit) != (form == "coco"):
            expected = "{images: FOLDER, annotations: JSON}" if form == "coco" else "a path"
            raise UserError(f"{root}: `{split}:` of a {TITLES[form]} data set has to be {expected}")
        return source if isinstance(source, JsonSplit) else _as_tuple(source)
    if any(getattr(config, other) is not None for other in SPLITS):
        return None  # a YAML that names one split has to name all
    defaults = _default_paths(form, split)
    existing = next((place for place in defaults if (root / place).exists()), None)
    if form != "coco":
        return None if existing is None else (existing,)
    if split == "test" and existing is None:
        return None
    return JsonSplit(images=f"{split}2017", annotations=existing or defaults[0])


def _load_coco(config: DatasetConfig, root: Path, split: str, place: JsonSplit) -> Index:
    folder, json = root / place.images, root / place.annotations

    return load_or_read(
        root,
        split,
        (place, config.names),
        enabled=json.is_file() and json.stat().st_size >= CACHED_JSON,
        fingerprint=lambda: fingerprint_coco(folder, json),
        read=lambda: read_coco(folder, json, config.names, labelled=split != "test"),
    )


def _load_folders(config: DatasetConfig, root: Path, split: str, place: tuple[str, ...]) -> Index:
    folder, *others = place
    if others:
        raise UserError(f"{root}: `{split}:` of {TITLES['folders']} has to be one folder")
    pairs, names = list_image_folders(root, folder, config.names)
    return load_or_read(
        root,
        split,
        ("folders", place, names),
        enabled=len(pairs.images) >= CACHED_FROM,
        fingerprint=lambda: fingerprint_pairs(pairs),
        read=lambda: read_image_folders(pairs, names),
    )


def _load_arrays(config: DatasetConfig, root: Path, form: Format, split: str) -> Index:
    title = TITLES[form]
    for key in ("names", *SPLITS):
        if getattr(config, key) is not None:
            raise UserError(f"{root}: `{key}:` is given by the files of {title}; remove it")
    if split == "test":
        raise UserError(f"{root}: {title} has no split `test`: its test images are `val`")
    return read_array_split(form, root, split)


def _unify_classes(config: DatasetConfig, root: Path, split: str, index: Index) -> Index:
    """VOC without `names`: numbers the sorted classes of all splits, so that splits agree."""
    names = set(index.names)
    for other in SPLITS:
        place = _locate(config, root, "voc", other)
        if other != split and isinstance(place, tuple):
            names |= set(_load_pairs(config, root, "voc", other, place).names)
    return relabel(index, tuple(sorted(names)), np.arange(1, len(names) + 1))


def _load_pairs(
    config: DatasetConfig, root: Path, form: Format, split: str, place: tuple[str, ...]
) -> Index:
    lines = LineFormat(config.kpt_shape, config.polygons)
    zero_based, names = config.voc_zero_based, config.names
    if form == "yolo" and not names:
        raise UserError(
            f"{root}: YOLO txt files contain only class numbers; the data YAML needs the names: "
            f"`names: [cat, dog]`"
        )

    def read(pairs: Pairs) -> Index:
        if form == "voc":
            return read_voc(pairs, names, zero_based=zero_based)
        return read_yolo(pairs, names or (), lines)

    pairs = (pair_yolo if form == "yolo" else pair_voc)(root, place, split)
    return load_or_read(
        root,
        split,
        (form, place, names, lines, zero_based),
        enabled=len(pairs.images) >= CACHED_FROM,
        fingerprint=lambda: fingerprint_pairs(pairs),
        read=lambda: read(pairs),
    )
