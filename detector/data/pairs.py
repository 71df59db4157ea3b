"""Data sets in which each image has a label file of its own: what YOLO txt and Pascal VOC share.

Two steps: which image has which label file (`Pairs`, by listing folders, cheap), and what is in them
(`read_pairs`, which opens every file and so is worth a cache).
"""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.data.cache import Fingerprint
from detector.data.files import SUFFIXES, UnreadableImage
from detector.data.headers import image_size, in_threads
from detector.data.index import Finding, Index, make_index
from detector.errors import UserError

# Height and width of an image that cannot be read: its boxes stay in validation and count as missed.
UNREADABLE_SIZE = (640, 640)


@dataclass(slots=True)
class Pairs:
    """Images and their label files.

    Attributes:
        folder: of the data set; file names are relative to it, or absolute outside of it.
        source: the first list or folder that names the images.
        images: n file names.
        labels: n file names of the label files; None where an image has none.
        lists: the files whose content decides which images there are.
        findings: images and labels without their partner.
    """

    folder: Path
    source: Path
    images: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def name(self, path: str) -> str:
        """A file as it is named here: relative to the folder, or absolute outside of it."""
        prefix = f"{self.folder}{os.sep}"
        return path.removeprefix(prefix)

    def add(self, image: str, label: str | None) -> None:
        """One image (a path) and its label file."""
        self.images.append(self.name(image))
        self.labels.append(None if label is None else self.name(label))

    def check(self, split: str, *, labelled: bool, looked_in: str) -> None:
        """Findings of images without labels; stops where nothing can be trained on.

        Raises:
            UserError: no images, or not one of them has a label file.
        """
        if not self.images:
            raise UserError(f"{self.source}: no images for the split `{split}`")
        if not labelled:
            return
        if not any(self.labels):
            raise UserError(
                f"{self.source}: none of the {len(self.images)} images of `{split}` has a label file; "
                f"looked for {looked_in}"
            )
        self.findings += [
            Finding("image without label", image, "no label file; taken as background")
            for image, label in zip(self.images, self.labels, strict=True)
            if label is None
        ]


@dataclass(slots=True)
class Labels:
    """What one label file says.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, class number, whether it is a crowd, and its line or place.
        faults: (kind, line or place, what is wrong), for findings.
        size: height and width, if the file says them.
        usable: false where the file as a whole cannot be read, so that the image is no background.
    """

    boxes: list[tuple[float, float, float, float, int, bool, int]] = field(default_factory=list)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    usable: bool = True


Parser = Callable[[bytes, tuple[int, int]], Labels]  # content, (height, width) of the image


def fingerprint_pairs(pairs: Pairs) -> Fingerprint:
    """Changes with any list, and with the name, size or times of any image or label file."""
    digest, newest = hashlib.blake2b(), 0
    for path in pairs.lists:
        digest.update(path.read_bytes())
    for finding in pairs.findings:
        digest.update(f"{finding!r}\n".encode("utf-8", "surrogateescape"))
    for name in (name for pair in zip(pairs.images, pairs.labels, strict=True) for name in pair):
        try:
            about = None if name is None else os.stat(f"{pairs.folder}{os.sep}{name}")  # noqa: PTH116  # fast
        except OSError:
            about = None
        facts = about and (about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        newest = max(newest, *facts[1:]) if facts else newest
        digest.update(f"{name}{facts}\n".encode("utf-8", "surrogateescape"))
    return Fingerprint(digest.hexdigest(), newest)


def read_pairs(
    pairs: Pairs, parse: Parser, names: Callable[[], tuple[str, ...]], *, unit: str
) -> Index:
    """Opens every file and joins what is in them.

    Args:
        pairs: from listing the folders.
        parse: one label file's content.
        names: the class names, asked for once all files are parsed.
        unit: what the places in a file are called, "line" or "object".
    """
    files: list[str] = []
    label_files: list[str | None] = []
    sizes, boxes = array("q"), array("d")  # 8 bytes a number; lists of numbers cost 32
    owner, labels, crowd, places = array("q"), array("q"), array("b"), array("q")
    findings = list(pairs.findings)

    def read(pair: tuple[str, str | None]) -> tuple[tuple[int, int] | str, bytes | str]:
        image, label = (None if name is None else str(pairs.folder / name) for name in pair)
        assert image is not None
        try:
            size = image_size(image)
        except UnreadableImage as error:
            size = str(error).removeprefix(f"{image}: ")
        try:
            return size, b"" if label is None else Path(label).read_bytes()
        except OSError as error:
            return size, str(error.strerror)

    both = list(zip(pairs.images, pairs.labels, strict=True))
    contents = in_threads(read, both, about=f"read {pairs.source.name}")
    for (image, label), (size, content) in zip(both, contents, strict=True):
        readable = not isinstance(size, str)
        height_width = size if readable else UNREADABLE_SIZE
        if isinstance(content, str):
            findings.append(Finding("label not parsed", str(label), f"{content}; image left out"))
            continue
        found = Labels() if label is None else parse(content, height_width)
        for kind, place, what in found.faults:
            findings.append(
                Finding(kind, f"{label}: {unit} {place}" if place else str(label), what)
            )
        if not found.usable:
            continue
        if not readable:
            findings.append(Finding("unreadable image", image, size))
            height_width = found.size or height_width
        elif found.size not in (None, size):
            height, width = found.size
            what = f"its label file says {width} x {height} pixels, it has {size[1]} x {size[0]}"
            findings.append(Finding("size mismatch", image, what))
        for x1, y1, x2, y2, number, is_crowd, place in found.boxes:
            boxes.extend((x1, y1, x2, y2))
            owner.append(len(files))
            labels.append(number)
            crowd.append(is_crowd)
            places.append(place)
        files.append(image)
        label_files.append(label)
        sizes.extend(height_width)
    owners = np.frombuffer(owner, np.int64) if owner else np.zeros(0, np.int64)
    known = names()

    def where(row: int) -> str:
        return f"{label_files[owners[row]]}: {unit} {places[row]}"

    return make_index(
        folder=pairs.folder,
        files=files,
        image_ids=np.arange(1, len(files) + 1),
        sizes=np.array(sizes, np.int64),
        owner=owners,
        boxes_xyxy=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd, bool),
        names=known,
        category_ids=np.arange(1, len(known) + 1),
        annotations=pairs.source,
        findings=findings,
        where=where,
    )


def walk(folder: Path) -> Iterator[str]:
    """Image files in a folder and below, sorted by path."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES):
                yield os.path.join(parent, name)  # noqa: PTH118  # a million Paths take seconds


def stem(name: str) -> str:
    """A file name without its suffix; `Path` does the same in ten times the time."""
    return name.rpartition(".")[0]


class Folders:
    """File names by folder, each folder listed once: a listing costs less than a stat for each file."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __getitem__(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                self._names[folder] = {entry.name for entry in os.scandir(folder)}
            except OSError:
                self._names[folder] = set()
        return self._names[folder]

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self[folder]


def read_list(path: Path) -> list[str]:
    """The lines of a list of images, without empty ones.

    Raises:
        UserError: unreadable.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
