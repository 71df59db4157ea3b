"""Data sets with one label file per image: what YOLO txt and Pascal VOC share.

There are two steps. Listing folders finds the label file of each image (`Pairs`; cheap). `read_pairs`
then opens every file, so that its result is worth caching.
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
from detector.errors import UserError, read_regular_file

# Assumed height and width of an unreadable image: in validation its boxes stay and count as missed.
UNREADABLE_SIZE = (640, 640)


@dataclass(slots=True)
class Pairs:
    """Images and their label files.

    Attributes:
        folder: of the data set; names of files outside of it are absolute.
        source: the first list or folder of images.
        images: n file names.
        labels: n file names of the label files; None where an image has none.
        lists: the list files that were read.
        findings: missing images, and images and label files without a counterpart.
    """

    folder: Path
    source: Path
    images: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def name(self, path: str) -> str:
        """The name of a file: relative to the folder or, outside of it, absolute."""
        prefix = f"{self.folder}{os.sep}"
        return path.removeprefix(prefix)

    def add(self, image: str, label: str | None) -> None:
        """Adds an image (a path) and its label file."""
        self.images.append(self.name(image))
        self.labels.append(None if label is None else self.name(label))

    def check(self, split: str, *, labelled: bool, looked_in: str) -> None:
        """Adds a finding for each image without a label file.

        Raises:
            UserError: no images, or not one of them has a label file.
        """
        if not self.images:
            missing = [each.where for each in self.findings if each.kind == "missing image"]
            why = (
                f": none of the {len(missing)} images that its list names exists; the first that was "
                f"looked for is {self.folder / missing[0]}"
                if missing
                else ""
            )
            raise UserError(f"{self.source}: the split `{split}` has no images{why}")
        if not labelled:
            return
        if not any(self.labels):
            raise UserError(
                f"{self.source}: none of the {len(self.images)} images of `{split}` has a label file; "
                f"expected {looked_in}"
            )
        self.findings += [
            Finding("image without label", image, "no label file; used as background")
            for image, label in zip(self.images, self.labels, strict=True)
            if label is None
        ]


@dataclass(slots=True)
class LabelFile:
    """The parsed content of one label file.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, class number, whether it is a crowd, and its place in the file
            (line or object number).
        faults: (kind, place in the file or 0, what is wrong), for findings.
        size: height and width of the image, if the file gives them.
        usable: false if the file cannot be parsed at all; its image is then skipped, not used as
            background.
    """

    boxes: list[tuple[float, float, float, float, int, bool, int]] = field(default_factory=list)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    usable: bool = True


Parser = Callable[[bytes, tuple[int, int]], LabelFile]  # content, (height, width) of the image


def fingerprint_pairs(pairs: Pairs) -> Fingerprint:
    """A fingerprint of the content of lists, and of name, size and times of all other files."""
    digest, newest = hashlib.blake2b(), 0
    for path in pairs.lists:
        digest.update(path.read_bytes())
    for finding in pairs.findings:
        digest.update(f"{finding!r}\n".encode("utf-8", "surrogateescape"))
    for name in (name for pair in zip(pairs.images, pairs.labels, strict=True) for name in pair):
        try:
            path = f"{pairs.folder}{os.sep}{name}"  # a million Paths would take seconds
            stat = None if name is None else os.stat(path)  # noqa: PTH116
        except OSError:
            stat = None
        facts = stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        newest = max(newest, *facts[1:]) if facts else newest
        digest.update(f"{name}{facts}\n".encode("utf-8", "surrogateescape"))
    return Fingerprint(digest.hexdigest(), newest)


def read_pairs(
    pairs: Pairs, parse: Parser, names: Callable[[], tuple[str, ...]], *, unit: str
) -> Index:
    """Reads every image size and label file into an index.

    Args:
        pairs: images and their label files.
        parse: parses one label file.
        names: returns the class names; called after all files are parsed.
        unit: what a place in a label file is called, "line" or "object".
    """
    builder = _IndexBuilder(unit, list(pairs.findings))
    both = list(zip(pairs.images, pairs.labels, strict=True))
    contents = map_in_threads(
        lambda pair: _read_pair(pairs.folder, *pair), both, label=f"read {pairs.source.name}"
    )
    for (image, label), (size, content) in zip(both, contents, strict=True):
        if isinstance(content, str):
            fault = ("label not parsed", 0, f"{content}; image skipped")
            parsed = LabelFile(faults=[fault], usable=False)
        elif label is None:
            parsed = LabelFile()
        else:
            parsed = parse(content, UNREADABLE_SIZE if isinstance(size, str) else size)
        builder.add(image, label, size, parsed)
    return builder.build(pairs, names())


def _read_pair(
    folder: Path, image: str, label: str | None
) -> tuple[tuple[int, int] | str, bytes | str]:
    """The image's height and width and the label file's content; errors are returned as strings."""
    path = str(folder / image)
    try:
        size = image_size(path)
    except UnreadableImage as error:
        size = str(error).removeprefix(f"{path}: ")
    try:
        return size, b"" if label is None else read_regular_file(folder / label)
    except UserError as error:
        return size, str(error).removeprefix(f"{folder / label}: " if label else "")


class _IndexBuilder:
    """Collects label files in arrays of 8 bytes per number, where lists would take 32."""

    def __init__(self, unit: str, findings: list[Finding]) -> None:
        self.unit, self.findings = unit, findings
        self.images: list[str] = []
        self.label_files: list[str | None] = []
        self.sizes, self.boxes = array("q"), array("d")
        self.owner, self.labels, self.crowd, self.places = (array("q") for _ in range(4))

    def add(
        self, image: str, label: str | None, size: tuple[int, int] | str, parsed: LabelFile
    ) -> None:
        """Adds one image; a string as `size` says why the image cannot be read."""
        for kind, place, what in parsed.faults:
            where = f"{label}: {self.unit} {place}" if place else str(label)
            self.findings.append(Finding(kind, where, what))
        if not parsed.usable:
            return
        if isinstance(size, str):
            self.findings.append(Finding("unreadable image", image, size))
            size = parsed.size or UNREADABLE_SIZE
        elif parsed.size is not None and parsed.size != size:
            annotated, actual = (f"{width} x {height}" for height, width in (parsed.size, size))
            what = f"its label file says {annotated} pixels, the image has {actual}"
            self.findings.append(Finding("size mismatch", image, what))
        for x1, y1, x2, y2, number, is_crowd, place in parsed.boxes:
            self.boxes.extend((x1, y1, x2, y2))
            self.owner.append(len(self.images))
            self.labels.append(number)
            self.crowd.append(is_crowd)
            self.places.append(place)
        self.images.append(image)
        self.label_files.append(label)
        self.sizes.extend(size)

    def build(self, pairs: Pairs, names: tuple[str, ...]) -> Index:
        """The index of all images added so far."""

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
    """Whether a file name has the suffix of an image and does not start with a dot."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def walk_images(folder: Path) -> Iterator[str]:
    """Yields image files in a folder and its subfolders, sorted by path."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if has_image_suffix(name):
                yield os.path.join(parent, name)  # noqa: PTH118  # a million Paths take seconds


def file_stem(name: str) -> str:
    """A file name without its suffix, in a tenth of the time of `Path.stem`."""
    return name.rpartition(".")[0]


class FolderListings:
    """File names by folder; lists each folder once, which costs less than one stat per file."""

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
    """Reads the non-empty lines of a list of images.

    Raises:
        UserError: the file is not readable text.
    """
    try:
        text = read_regular_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
