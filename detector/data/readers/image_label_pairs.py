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

from detector.data.store.image_files import SUFFIXES, UnreadableImage
from detector.data.store.image_sizes import image_size, map_in_threads
from detector.data.store.index import Finding, Index, make_index
from detector.data.store.index_cache import Fingerprint
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
class LabelFile:
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


Parser = Callable[[bytes, tuple[int, int]], LabelFile]  # content, (height, width) of the image


def fingerprint_pairs(pairs: Pairs) -> Fingerprint:
    """Changes with any list, and with the name, size or times of any image or label file."""
    digest, newest = hashlib.blake2b(), 0
    for path in pairs.lists:
        digest.update(path.read_bytes())
    for finding in pairs.findings:
        digest.update(f"{finding!r}\n".encode("utf-8", "surrogateescape"))
    for name in (name for pair in zip(pairs.images, pairs.labels, strict=True) for name in pair):
        try:
            path = f"{pairs.folder}{os.sep}{name}"  # a million Paths would take seconds
            about = None if name is None else os.stat(path)  # noqa: PTH116
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
    table = _IndexBuilder(unit, list(pairs.findings))
    both = list(zip(pairs.images, pairs.labels, strict=True))
    contents = map_in_threads(
        lambda pair: _open(pairs.folder, *pair), both, about=f"read {pairs.source.name}"
    )
    for (image, label), (size, content) in zip(both, contents, strict=True):
        if isinstance(content, str):
            fault = ("label not parsed", 0, f"{content}; image left out")
            found = LabelFile(faults=[fault], usable=False)
        elif label is None:
            found = LabelFile()
        else:
            found = parse(content, UNREADABLE_SIZE if isinstance(size, str) else size)
        table.add(image, label, size, found)
    return table.index(pairs, names())


def _open(folder: Path, image: str, label: str | None) -> tuple[tuple[int, int] | str, bytes | str]:
    """The image's height and width and the label file's content, or why there is none."""
    path = str(folder / image)
    try:
        size = image_size(path)
    except UnreadableImage as error:
        size = str(error).removeprefix(f"{path}: ")
    try:
        return size, b"" if label is None else (folder / label).read_bytes()
    except OSError as error:
        return size, str(error.strerror)


class _IndexBuilder:
    """What was read so far, in columns of 8 bytes a number (a list of numbers costs 32)."""

    def __init__(self, unit: str, findings: list[Finding]) -> None:
        self.unit, self.findings = unit, findings
        self.images: list[str] = []
        self.label_files: list[str | None] = []
        self.sizes, self.boxes = array("q"), array("d")
        self.owner, self.labels, self.crowd, self.places = (array("q") for _ in range(4))

    def add(
        self, image: str, label: str | None, size: tuple[int, int] | str, found: LabelFile
    ) -> None:
        """One image; a `size` that is a text says why the image cannot be read."""
        for kind, place, what in found.faults:
            where = f"{label}: {self.unit} {place}" if place else str(label)
            self.findings.append(Finding(kind, where, what))
        if not found.usable:
            return
        if isinstance(size, str):
            self.findings.append(Finding("unreadable image", image, size))
            size = found.size or UNREADABLE_SIZE
        elif found.size is not None and found.size != size:
            said, is_ = (f"{width} x {height}" for height, width in (found.size, size))
            what = f"its label file says {said} pixels, it has {is_}"
            self.findings.append(Finding("size mismatch", image, what))
        for x1, y1, x2, y2, number, is_crowd, place in found.boxes:
            self.boxes.extend((x1, y1, x2, y2))
            self.owner.append(len(self.images))
            self.labels.append(number)
            self.crowd.append(is_crowd)
            self.places.append(place)
        self.images.append(image)
        self.label_files.append(label)
        self.sizes.extend(size)

    def index(self, pairs: Pairs, names: tuple[str, ...]) -> Index:
        def where(row: int) -> str:
            return f"{self.label_files[self.owner[row]]}: {self.unit} {self.places[row]}"

        return make_index(
            folder=pairs.folder,
            files=self.images,
            image_ids=np.arange(1, len(self.images) + 1),
            sizes=np.array(self.sizes, np.int64),
            owner=np.array(self.owner, np.int64),
            boxes_xyxy=np.array(self.boxes, np.float64).reshape(-1, 4),
            labels=np.array(self.labels, np.int64),
            crowd=np.array(self.crowd, bool),
            names=names,
            category_ids=np.arange(1, len(names) + 1),
            annotations=pairs.source,
            findings=self.findings,
            where=where,
        )


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image; those that start with a dot are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def walk_images(folder: Path) -> Iterator[str]:
    """Image files in a folder and below, sorted by path."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if has_image_suffix(name):
                yield os.path.join(parent, name)  # noqa: PTH118  # a million Paths take seconds


def file_stem(name: str) -> str:
    """A file name without its suffix; `Path` does the same in ten times the time."""
    return name.rpartition(".")[0]


class FolderListing:
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
