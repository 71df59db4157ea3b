"""Pascal VOC: an xml file for each image.

ROOT/JPEGImages/a.jpg   ROOT/Annotations/a.xml   ROOT/ImageSets/Main/train.txt with a line `a`
(or one folder with a.jpg and a.xml side by side)
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from detector.data.readers.image_label_pairs import (
    FolderListings,
    LabelFile,
    Pairs,
    file_stem,
    has_image_suffix,
    read_list,
    read_pairs,
)
from detector.data.store.image_files import SUFFIXES
from detector.data.store.index import Finding, Index, relabel
from detector.errors import require_file

DIFFICULT = {"1", "1.0", "true", "yes"}  # as programs write it
_OF_ONE_CLASS = re.compile(r"\s+(-1|0|1)$")
IMAGE_FOLDERS, LABEL_FOLDERS = ("JPEGImages", "images"), ("Annotations", "annotations")


def pair_voc(root: Path, sources: Sequence[str], split: str) -> Pairs:
    """Finds the images of a split and their xml files.

    Args:
        root: of relative sources.
        sources: lists (`ImageSets/Main/train.txt`, or `VOC2007/ImageSets/Main/trainval.txt`) with one
            name per line, of images in JPEGImages above the list; or folders, whose images are in
            JPEGImages or `images`, or beside their xml files.
        split: `test` may have no labels.

    Raises:
        UserError: a source does not exist, or has no images or no labels.
    """
    pairs, folders = Pairs(root, root / sources[0]), FolderListings()
    looked_in: list[str] = []
    seen: set[str] = set()
    for path in (root / source for source in sources):
        if path.is_dir():
            base, lines = path, None
        else:
            require_file(path, missing="no such list of images or folder")
            pairs.lists.append(path)
            base = next((p for p in path.parents if (p / "Annotations").is_dir()), root)
            lines = read_list(path)
        images, labels = _find_subfolder(base, IMAGE_FOLDERS), _find_subfolder(base, LABEL_FOLDERS)
        looked_in.append(f"{labels}/*.xml")
        _pair_folder(pairs, folders, images, labels, lines)
        if labels not in seen:
            seen.add(labels)
            known = _files_by_stem(folders[images])
            pairs.findings += [
                Finding(
                    "label without image", pairs.name(f"{labels}/{name}"), f"no image in {images}"
                )
                for name in sorted(folders[labels])
                if name.endswith(".xml") and name[:-4] not in known
            ]
    pairs.check(split, labelled=split != "test", looked_in=" and ".join(looked_in))
    return pairs


def read_voc(pairs: Pairs, names: tuple[str, ...] | None, *, zero_based: bool = False) -> Index:
    """Reads the index of a split; malformed objects are skipped and named in the findings.

    VOC counts pixels from 1, inclusively: a box spans xmin - 1, ymin - 1 to xmax, ymax.

    Args:
        pairs: from `pair_voc`.
        names: the class names, by label; None: all that occur, sorted.
        zero_based: coordinates count from 0, as some programs write them.
    """
    number_of = {name: number for number, name in enumerate(names or ())}

    def look_up(name: str) -> int | None:
        return number_of.get(name) if names else number_of.setdefault(name, len(number_of))

    def parse(content: bytes, size: tuple[int, int]) -> LabelFile:
        return parse_voc(content, look_up, zero_based=zero_based)

    index = read_pairs(pairs, parse, lambda: names or tuple(number_of), unit="object")
    return relabel(index, names or tuple(sorted(number_of)), index.category_ids)


def parse_voc(
    content: bytes, number_of: Callable[[str], int | None], *, zero_based: bool = False
) -> LabelFile:
    """Parses one xml file; `number_of` returns the number of a class, None for an unknown one.

    `difficult` objects are treated as COCO's crowds: neither objects nor background.
    """
    labels = LabelFile()
    try:
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        labels.faults.append(("label not parsed", 0, f"not valid xml ({error}); image skipped"))
        labels.usable = False
        return labels
    try:
        labels.size = _number(tree, "size/height"), _number(tree, "size/width")
    except ValueError:
        labels.size = None  # many programs do not write it
    first = 0 if zero_based else 1
    for place, entry in enumerate(tree.iter("object"), 1):
        name = (entry.findtext("name") or "").strip()
        try:
            x1, y1, x2, y2 = (
                float(entry.findtext(f"bndbox/{side}") or "")
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            what = f"{name or 'an object'}: its bndbox does not have four numbers"
            labels.faults.append(("label not parsed", place, what))
            continue
        number = number_of(name) if name else None
        if number is None:
            labels.faults.append(("unknown class", place, f"class {name!r} is not in `names`"))
            continue
        difficult = (entry.findtext("difficult") or "").strip().lower() in DIFFICULT
        labels.boxes.append((x1 - first, y1 - first, x2, y2, number, difficult, place))
    return labels


def _find_images(lines: list[str], names: set[str]) -> list[str | None]:
    """The image file that each line of a list names, None where there is none.

    A line is `a` or `a.jpg`. Only in a list of one class, where every line ends with -1, 0 or 1 and none
    is the name of an image as it stands, is it `a  1`: `photo 1` is an image's name, too.
    """
    by_stem = _files_by_stem(names)

    def find(line: str) -> str | None:
        name = os.path.basename(line.replace("\\", "/"))  # noqa: PTH119  # fast
        if name in names and has_image_suffix(name):
            return name
        return by_stem.get(file_stem(name) if name.lower().endswith(SUFFIXES) else name)

    found = [find(line) for line in lines]
    if any(found) or not all(_OF_ONE_CLASS.search(line) for line in lines):
        return found
    return [find(_OF_ONE_CLASS.sub("", line)) for line in lines]


def _number(tree: ElementTree.Element, path: str) -> int:
    return int(float(tree.findtext(path) or ""))


def _find_subfolder(base: Path, names: Sequence[str]) -> str:
    return str(next((base / name for name in names if (base / name).is_dir()), base))


def _files_by_stem(names: set[str]) -> dict[str, str]:
    """Image file names by their name without suffix."""
    images = sorted(filter(has_image_suffix, names))
    return {file_stem(name): name for name in images}


def _pair_folder(
    pairs: Pairs, folders: FolderListings, images: str, labels: str, lines: list[str] | None
) -> None:
    """Adds the images that lines of a list name, or all of a folder, and their label files."""
    files = [name for name in sorted(folders[images]) if has_image_suffix(name)]
    lines = files if lines is None else lines
    for line, name in zip(lines, _find_images(lines, folders[images]), strict=True):
        if name is None:
            what = f"no image file of this name ({', '.join(SUFFIXES)})"
            pairs.findings.append(Finding("missing image", pairs.name(f"{images}/{line}"), what))
            continue
        label = f"{file_stem(name)}.xml"
        has_label = label in folders[labels]
        pairs.add(f"{images}{os.sep}{name}", f"{labels}{os.sep}{label}" if has_label else None)
