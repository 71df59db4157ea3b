"""Pascal VOC: an xml file for each image.

ROOT/JPEGImages/a.jpg   ROOT/Annotations/a.xml   ROOT/ImageSets/Main/train.txt with a line `a`
(or one folder with a.jpg and a.xml side by side)
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from detector.data.readers.image_label_pairs import (
    FolderListings,
    LabelFile,
    Pairs,
    read_list,
    read_pairs,
)
from detector.data.readers.voc_images import VocImages
from detector.data.store.image_files import SUFFIXES
from detector.data.store.index import Finding, Index, relabel
from detector.errors import require_file

DIFFICULT = {"1", "1.0", "true", "yes"}  # as programs write it
_OF_ONE_CLASS = re.compile(r"\s+(-1|0|1)$")


def pair_voc(root: Path, sources: Sequence[str], split: str) -> Pairs:
    """Finds the images of a split and their xml files.

    Args:
        root: of relative sources.
        sources: lists (`ImageSets/Main/train.txt`, or `VOC2007/ImageSets/Main/trainval.txt`) with one
            name per line, of images in JPEGImages above the list, or with a folder before it (see
            `voc_images`); or folders, whose images are in JPEGImages or `images`, or beside their xml
            files.
        split: `test` may have no labels.

    Raises:
        UserError: a source does not exist, or has no images or no labels.
    """
    pairs, folders = Pairs(root, root / sources[0]), FolderListings()
    known: dict[Path, VocImages] = {}
    for path in (root / source for source in sources):
        if path.is_dir():
            base, lines = path, None
        else:
            require_file(path, missing="no such list of images or folder")
            pairs.lists.append(path)
            base = next((p for p in path.parents if (p / "Annotations").is_dir()), root)
            lines = read_list(path)
        if base not in known:
            known[base] = VocImages(base, folders)
            pairs.findings += [
                Finding(
                    "label without image", pairs.name(label), f"no image in {known[base].images}"
                )
                for label in known[base].orphans
            ]
        _pair_images(pairs, known[base], lines)
    looked_in = dict.fromkeys(f"{images.labels}/*.xml" for images in known.values())
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


def _pair_images(pairs: Pairs, images: VocImages, lines: list[str] | None) -> None:
    """Adds the images that lines of a list name, or all of a folder, and their label files."""
    lines = images.list_images() if lines is None else lines
    for line, image in zip(lines, _find_images(lines, images), strict=True):
        elsewhere = images.find_elsewhere(line) if image is None else None
        found = image or elsewhere
        if found is None:
            what = f"no image file of this name ({', '.join(SUFFIXES)})"
            pairs.findings.append(
                Finding("missing image", pairs.name(f"{images.images}/{line}"), what)
            )
            continue
        label = images.find_label(found)
        if elsewhere is not None:
            what = f"the list says {line}, which does not exist"
            pairs.findings.append(Finding("image elsewhere", pairs.name(elsewhere), what))
        elif found in images.label_of and label is not None:
            what = f"no xml file has its name; {pairs.name(label)} names it"
            pairs.findings.append(Finding("image elsewhere", pairs.name(found), what))
        pairs.add(found, label)


def _find_images(lines: list[str], images: VocImages) -> list[str | None]:
    """The path of the image that each line of a list names, None where there is none.

    A line is `a`, `a.jpg` or `folder/a.jpg`. Only in a list of one class, where every line ends with -1,
    0 or 1 and none is the name of an image as it stands, is it `a  1`: `photo 1` is an image's name, too.
    """
    found = list(map(images.find, lines))
    if any(found) or not all(_OF_ONE_CLASS.search(line) for line in lines):
        return found
    return [images.find(_OF_ONE_CLASS.sub("", line)) for line in lines]


def _number(tree: ElementTree.Element, path: str) -> int:
    return int(float(tree.findtext(path) or ""))
