"""COCO's annotation json: the one place where a file's values are checked.

Training, evaluation, checks and conversion get what `read_coco_json` returns: ids are whole numbers,
names and file names text, boxes four finite numbers, whatever the file's author wrote them as. What is
unambiguous is read (a quoted number as an id, `"iscrowd": "0"`); all else is a `UserError` with the
file and the entry.
"""

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.errors import UserError, read_regular_file

LARGEST_ID = 2**63 - 1  # of an int64
LARGEST_SIZE = 1_000_000  # px, width or height
EXACT_FLOAT = 2**53  # above it, a float stands for several whole numbers
LISTS = ("images", "annotations", "categories")
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CocoJson:
    """A checked annotation file.

    Attributes:
        source: its path, or what messages call it.
        images: `id` int, `file_name` str; `width` and `height` int, or None where the file has none.
        categories: `id` int, `name` str; names are unique.
        annotations: `id` int, `image_id` and `category_id` of the lists above, `bbox` of four finite
            numbers, `iscrowd` 0 or 1; `area`, if there is one, a finite number.
        other: the file's other keys (info, licenses).
        non_finite: (annotation id, box) of the annotations that are skipped.
        merged: (name, category ids) of categories with the same name, of which the last is kept.
    """

    source: str
    images: list[Entry]
    categories: list[Entry]
    annotations: list[Entry]
    other: Entry
    non_finite: tuple[tuple[Any, list[float]], ...] = ()
    merged: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def as_dict(self) -> Entry:
        """The content of a json file without the faults."""
        return {**self.other, **{key: getattr(self, key) for key in LISTS}}


def load_json(path: Path, *, hint: str = "") -> Any:
    """The content of a json file.

    Raises:
        UserError: no such file (followed by `hint`), unreadable, or not json.
    """
    content = read_regular_file(path, hint=hint)
    try:
        return json.loads(content)
    except RecursionError:
        raise UserError(f"{path}: not a readable json file (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{path}: not a readable json file ({error})") from None


def read_coco_json(
    path: Path, *, labelled: bool = True, named: bool = True, hint: str = ""
) -> CocoJson:
    """Reads and checks an annotation file.

    Args:
        path: the file.
        labelled: if false, it may have no annotations.
        named: if false, images and categories may have no name, which an evaluation does not need; a
            category is then named by its id.
        hint: follows "no such file; ".

    Raises:
        UserError: as `load_json` and `check_coco_tree`.
    """
    tree = load_json(path, hint=hint)
    if not labelled and isinstance(tree, dict):
        tree.setdefault("annotations", [])
    return check_coco_tree(tree, str(path), named=named)


def check_coco_tree(tree: Any, source: str, *, named: bool = True) -> CocoJson:
    """Checks the content of an annotation file, which stays as it is; `named` as in `read_coco_json`.

    Raises:
        UserError: one of COCO's three lists is missing, an entry lacks a key or has a value of the wrong
            kind, a duplicate id, or an annotation of an image or category that is not listed.
    """
    missing = [
        key for key in LISTS if not isinstance(tree, Mapping) or not isinstance(tree.get(key), list)
    ]
    if missing:
        raise UserError(
            f"{source}: not a COCO annotation file: list {', '.join(map(repr, missing))} is missing"
        )
    images = [
        _check_image(entry, f"{source}: images[{at}]", named=named)
        for at, entry in enumerate(tree["images"])
    ]
    categories = [
        _check_category(entry, f"{source}: categories[{at}]", named=named)
        for at, entry in enumerate(tree["categories"])
    ]
    if tree["annotations"] and not categories:
        raise UserError(f"{source}: its list of categories is empty")
    _require_unique_ids(images, source, "image")
    _require_unique_ids(categories, source, "category")
    kept, merged = _merge_same_names(categories)
    known = {entry["id"] for entry in images}
    non_finite: list[tuple[Any, list[float]]] = []
    annotations = list(_check_annotations(tree["annotations"], known, kept, source, non_finite))
    return CocoJson(
        source=source,
        images=images,
        categories=[entry for entry in categories if kept[entry["id"]] == entry["id"]],
        annotations=annotations,
        other={key: value for key, value in tree.items() if key not in LISTS},
        non_finite=tuple(non_finite),
        merged=merged,
    )


def parse_id(value: Any) -> int | None:
    """A whole number of at most 63 bits, written as 7, 7.0 or "7"; None for anything else."""
    if type(value) is int:
        number = value
    elif type(value) is float:
        number = int(value) if value.is_integer() and abs(value) <= EXACT_FLOAT else None
    else:
        number = int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else None
    return number if number is not None and abs(number) <= LARGEST_ID else None


def parse_number(value: Any) -> float | None:
    """A number, which may be quoted, inf or nan; None for anything else."""
    if type(value) is float:
        return value
    if type(value) is int:
        infinite = math.inf if value > 0 else -math.inf
        return float(value) if abs(value) <= LARGEST_ID else infinite
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return None


def parse_box(value: Any) -> list[float] | None:
    """Four numbers, unchanged if they are numbers; None for anything else."""
    if type(value) not in (list, tuple) or len(value) != 4:
        return None
    if set(map(type, value)) == {float}:
        return list(value)
    numbers = [parse_number(each) for each in value]
    return [each for each in numbers if each is not None] if None not in numbers else None


def show_entry(entry: Any) -> str:
    """An entry in one short line, whatever it holds."""
    return _short.repr(entry)


def show_box(box: Sequence[float]) -> str:
    """A box as messages have it: `(1, 2.5, nan, 4)`."""
    return f"({', '.join(f'{value:.10g}' for value in box)})"


_short = reprlib.Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxstring, _short.maxlong = 2, 5, 4, 40, 40


def _check_mapping(entry: Any, where: str) -> Entry:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object with keys, not {show_entry(entry)}")
    return entry  # pyright: ignore[reportUnknownVariableType]


def _check_id(entry: Entry, key: str, where: str) -> int:
    if key not in entry:
        raise UserError(f"{where}: an entry without {key!r}: {show_entry(entry)}")
    number = parse_id(entry[key])
    if number is None:
        raise UserError(
            f"{where}: {key!r} is {show_entry(entry[key])}; expected a whole number of at most "
            f"63 bits: number the entries, and what refers to them, again"
        )
    return number


def _check_text(entry: Entry, key: str, where: str, *, errors: str) -> str:
    """A name, or a whole number as its digits."""
    if key not in entry:
        raise UserError(f"{where}: an entry without {key!r}: {show_entry(entry)}")
    value = str(entry[key]) if type(entry[key]) is int else entry[key]
    if isinstance(value, str) and value.strip() and "\0" not in value:
        try:
            value.encode("utf-8", errors)
            return value
        except UnicodeEncodeError:  # half of a surrogate pair
            pass
    raise UserError(f"{where}: {key!r} is {show_entry(value)}; expected text")


def _check_image(entry: Any, where: str, *, named: bool) -> Entry:
    checked = {**_check_mapping(entry, where)}
    checked["id"] = _check_id(checked, "id", where)
    if named or checked.get("file_name") not in (None, ""):
        # file names that are not UTF-8 are escaped by surrogates, and are files nevertheless
        checked["file_name"] = _check_text(checked, "file_name", where, errors="surrogateescape")
    for key in ("width", "height"):
        checked[key] = _check_size(checked.get(key), f"{where}: {key!r}")
    return checked


def _check_size(value: Any, where: str) -> int | None:
    """Pixels; None if the file does not say, which exporters write as null, 0 or nothing."""
    number = 0 if value in (None, "") else parse_id(value)
    if number is None or not 0 <= number <= LARGEST_SIZE:
        raise UserError(
            f"{where} is {show_entry(value)}; expected pixels, or null to take the image file's"
        )
    return number or None


def _check_category(entry: Any, where: str, *, named: bool) -> Entry:
    entry = _check_mapping(entry, where)
    number = _check_id(entry, "id", where)
    if not named and "name" not in entry:
        return {**entry, "id": number, "name": str(number)}
    return {**entry, "id": number, "name": _check_text(entry, "name", where, errors="strict")}


def _require_unique_ids(entries: list[Entry], source: str, kind: str) -> None:
    counts = Counter(entry["id"] for entry in entries)
    duplicate = next((number for number, count in counts.items() if count > 1), None)
    if duplicate is not None:
        raise UserError(
            f"{source}: duplicate {kind} id {duplicate}: it occurs {counts[duplicate]} times"
        )


def _merge_same_names(
    categories: list[Entry],
) -> tuple[dict[int, int], tuple[tuple[str, tuple[int, ...]], ...]]:
    """The category id that stands for each id: of those with the same name, the largest.

    Exporters put a root category first, id 0, and may name it as its only child, which has the boxes.
    The choice must not depend on the boxes: it would differ between splits.
    """
    ids: dict[str, list[int]] = {}
    for entry in categories:
        ids.setdefault(entry["name"], []).append(entry["id"])
    kept = {number: max(same) for same in ids.values() for number in same}
    return kept, tuple((name, tuple(sorted(same))) for name, same in ids.items() if len(same) > 1)


def _check_annotations(
    entries: list[Any],
    images: set[int],
    categories: dict[int, int],
    source: str,
    non_finite: list[tuple[Any, list[float]]],
) -> Iterator[Entry]:
    """Yields the annotations with a finite box; adds the others to `non_finite`.

    Nothing refers to an annotation's id: if one is no whole number, all are numbered by their place.
    """
    ids = [parse_id(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    renumber = None in ids
    for at, entry in enumerate(entries):
        if not renumber and _is_plain(entry, images, categories):
            yield entry
            continue
        named = isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
        shown = show_entry(entry["id"]) if named else ""
        where = f"{source}: annotation {shown}" if named else f"{source}: annotations[{at}]"
        entry = _check_mapping(entry, where)
        image, category = (_check_id(entry, key, where) for key in ("image_id", "category_id"))
        if image not in images:
            raise UserError(f"{where}: unknown image id {image}: it is not in the list of images")
        if category not in categories:
            raise UserError(
                f"{where}: unknown category id {category}: it is not in the list of categories"
            )
        if "bbox" not in entry:
            raise UserError(f"{where}: an annotation without 'bbox': {show_entry(entry)}")
        box = parse_box(entry["bbox"])
        if box is None:
            raise UserError(
                f"{where}: 'bbox' is {show_entry(entry['bbox'])}; expected 4 numbers: x, y, width, "
                f"height"
            )
        checked = {
            "id": at + 1 if renumber else ids[at],
            "image_id": image,
            "category_id": categories[category],
            "bbox": box,
            "iscrowd": _check_flag(entry.get("iscrowd"), where),
        }
        if not all(map(math.isfinite, box)):
            non_finite.append((shown or at, box))
            continue
        area = _check_area(entry.get("area"), where)
        yield {k: v for k, v in entry.items() if k != "area"} | checked | area


def _is_plain(entry: Any, images: set[int], categories: dict[int, int]) -> bool:
    """Whether an annotation has all values as COCO has them; saves two thirds of the time."""
    try:
        box, area, category = entry["bbox"], entry["area"], entry["category_id"]
        kinds = map(type, (entry["id"], entry["image_id"], category, entry["iscrowd"]))
        return (
            set(kinds) == {int}
            and entry["image_id"] in images
            and categories.get(category) == category
            and entry["iscrowd"] in (0, 1)
            and type(box) is list
            and len(box) == 4
            and {int, float}.issuperset(map(type, (*box, area)))
            and max(map(abs, (*box, area))) < LARGEST_ID
            and not math.isnan(sum(box) + area)
        )
    except (KeyError, TypeError):  # a key is missing, or the entry is no object
        return False


def _check_flag(value: Any, where: str) -> int:
    if value is None:
        return 0
    if isinstance(value, int | float) and value in (0, 1):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise UserError(f"{where}: 'iscrowd' is {show_entry(value)}; expected 0 or 1")


def _check_area(value: Any, where: str) -> dict[str, float]:
    """The area as annotated; none if it is not finite: the box's stands for it."""
    if value is None:
        return {}
    number = parse_number(value)
    if number is None:
        raise UserError(f"{where}: 'area' is {show_entry(value)}; expected a number")
    return {"area": number} if math.isfinite(number) else {}
