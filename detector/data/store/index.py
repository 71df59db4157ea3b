"""A split of a data set as flat arrays, the same for every format.

Workers share arrays without copies, and a million images need far less memory than one object each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from detector.boxes import box_sizes
from detector.errors import UserError
from detector.registry import nearest

CATEGORY_KINDS = ("duplicate category", "root category")
# Kinds of findings that are only reported; images, boxes and labels with any other kind are skipped.
KEPT_KINDS = frozenset(
    {"duplicate box", "image elsewhere", "image without label", "size mismatch", *CATEGORY_KINDS}
)
# Kinds of findings whose images, boxes or labels are in the index, too.
INDEXED_KINDS = KEPT_KINDS | {"unreadable image"}
MIN_SIZE = 1e-3  # px; float32 corners of large images are no finer, so that less becomes 0 or noise
CLIP_TOLERANCE = 1.0  # px beyond the border; rounding by annotation tools stays below it


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one image or one box.

    Attributes:
        kind: one of a fixed list, used as keys in manifest.json: "missing image", "unreadable image",
            "flat box", "box outside", "not finite", "label not parsed", "unknown class",
            "label without image", and those of `KEPT_KINDS`.
        where: the file and the place in it.
        what: what is wrong.
    """

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    @property
    def skipped(self) -> bool:
        """Whether the image, box or label is not used; otherwise it is only reported."""
        return self.kind not in KEPT_KINDS


@dataclass(frozen=True, slots=True, eq=False)
class StringArray(Sequence[str]):
    """Many short strings in two arrays.

    A list of a million file names costs 100 bytes each, and reference counting copies it page by page
    into every worker; numpy's array of strings costs four bytes per character of the longest one.

    Attributes:
        blob: uint8, all strings in UTF-8, concatenated.
        starts: int64 [n + 1]; string i is blob[starts[i]:starts[i + 1]].
    """

    blob: np.ndarray
    starts: np.ndarray

    @classmethod
    def pack(cls, texts: Iterable[str]) -> "StringArray":
        """Packs strings; file names that are not UTF-8 survive the round trip."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "StringArray": ...
    def __getitem__(self, at: int | slice) -> "str | StringArray":
        if isinstance(at, slice):
            return StringArray.pack(self[i] for i in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        at = at % len(self)
        part = self.blob[self.starts[at] : self.starts[at + 1]]
        return part.tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def tolist(self) -> list[str]:
        """Unpacks all strings."""
        return list(self)


@dataclass(frozen=True, slots=True)
class Index:
    """The images of one split and their boxes.

    Attributes:
        folder: where the image files are.
        files: n file names, relative to `folder` or absolute. image_ids: int64 [n].
        sizes: int64 [n, 2], height and width in pixels.
        starts: int64 [n + 1]; the boxes of image i are rows starts[i]:starts[i + 1].
        boxes_xyxy: float32 [m, 4], pixels; labels: int64 [m], 0..classes-1; crowd: bool [m].
        clipped: bool [m], boxes that reached more than `CLIP_TOLERANCE` beyond the border of their image;
            they are clipped to it.
        names: the class names, by label. category_ids: int64 [classes], each label's id in COCO's json.
        annotations: COCO's json; for other formats the list or folder that the split was read from.
        findings: what was skipped and why, and what looks wrong but is used.
        notes: lines for the user: which format was detected, and how.
        pixels: uint8 [n, H, W, 3], RGB, or [n, H, W], of formats with many images in a file (CIFAR);
            `files` are then only names. None: every image is a file.
    """

    folder: Path
    files: StringArray
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    clipped: np.ndarray
    names: tuple[str, ...]
    category_ids: np.ndarray
    annotations: Path
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)

    def box_image_numbers(self) -> np.ndarray:
        """The number of the image that each box belongs to, int64 [m]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def make_index(
    *,
    folder: Path,
    files: Sequence[str],
    image_ids: np.ndarray,
    sizes: np.ndarray,
    owner: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: np.ndarray,
    crowd: np.ndarray,
    names: tuple[str, ...],
    category_ids: np.ndarray,
    annotations: Path,
    findings: Iterable[Finding],
    where: Callable[[int], str],
) -> Index:
    """Makes an index from boxes as annotated.

    Boxes are clipped to their image; those of zero size, wholly outside or non-finite are skipped. Exact
    duplicates are kept. Skipped and duplicate boxes are named in the findings.

    Args:
        owner: int64 [m], ascending; the number of the image that each box belongs to.
        boxes_xyxy: float64 [m, 4], pixels, as annotated.
        where: names the place in the annotations that row i came from.
        folder, files, image_ids, sizes, labels, crowd, names, category_ids, annotations, findings:
            see `Index`.
    """
    sizes = sizes.reshape(-1, 2).astype(np.int64)
    clipped = np.clip(boxes_xyxy, 0, np.tile(sizes[owner, ::-1], 2))  # [m, 4]
    boxes = clipped.astype(np.float32)  # in which a width of 1e-7 px may be none
    with np.errstate(invalid="ignore"):
        finite = np.asarray(np.isfinite(boxes_xyxy).all(axis=1))
        good = np.asarray(finite & (box_sizes(boxes) >= MIN_SIZE).all(axis=1))
        has_size = np.asarray((box_sizes(boxes_xyxy) >= MIN_SIZE).all(axis=1))
    all_findings = list(findings)
    for at in (~good).nonzero()[0].tolist():
        kind = "not finite" if not finite[at] else "box outside" if has_size[at] else "flat box"
        box = ", ".join(f"{value:.10g}" for value in boxes_xyxy[at])
        all_findings.append(Finding(kind, where(at), f"box ({box}) has no area inside its image"))
    rows = good.nonzero()[0]
    for at, first in _find_duplicates(boxes[good], owner[good], labels[good]):
        what = f"duplicate of {where(rows[first])}"
        all_findings.append(Finding("duplicate box", where(rows[at]), what))
    counts = np.bincount(owner[good], minlength=len(files))
    return Index(
        folder=folder,
        files=StringArray.pack(files),
        image_ids=image_ids.astype(np.int64),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xyxy=boxes[good],
        labels=labels[good].astype(np.int64),
        crowd=crowd[good].astype(bool),
        clipped=np.asarray((np.abs(boxes_xyxy - clipped) > CLIP_TOLERANCE).any(axis=1))[good],
        names=names,
        category_ids=category_ids.astype(np.int64),
        annotations=annotations,
        findings=tuple(all_findings),
    )


def describe_size_mismatch(annotated: tuple[int, int], actual: tuple[int, int]) -> str:
    """What is wrong with an image whose annotated (height, width) are not those of its file."""
    (height, width), (real_height, real_width) = annotated, actual
    hint = " (rotated?)" if annotated == actual[::-1] else ""
    return f"the image is {real_width} x {real_height}, annotated as {width} x {height}{hint}"


def _find_duplicates(
    boxes: np.ndarray, owner: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Yields (row, earlier row) of boxes that are equal in image, class and corners.

    Sorts one hash per row in place of six columns, then compares rows with equal hashes.
    """
    columns = [*boxes.view(np.uint32).T, owner, labels]
    factors = np.random.default_rng(0).integers(2**63, size=6, dtype=np.uint64) | np.uint64(1)
    hashes = np.zeros(len(boxes), np.uint64)
    for column, factor in zip(columns, factors, strict=True):  # odd factors
        hashes ^= column.astype(np.uint64)
        hashes *= factor  # wraps around
        hashes ^= hashes >> np.uint64(31)
    order = np.argsort(hashes, kind="stable")
    at = (hashes[order[:-1]] == hashes[order[1:]]).nonzero()[0]
    before, after = order[at], order[at + 1]
    same = np.ones(len(at), bool)
    for column in columns:
        same &= column[before] == column[after]
    pairs = np.stack([after[same], before[same]], 1)
    yield from pairs[np.argsort(pairs[:, 0])].tolist()


def choose_classes(index: Index, classes: tuple[str, ...]) -> Index:
    """Keeps only the boxes of `classes`, numbered in this order; all images are kept.

    Raises:
        UserError: a class that the data set does not have; the error names the nearest one.
    """
    unknown = [name for name in classes if name not in index.names]
    if unknown:
        known = list(index.names)
        hint = nearest(unknown[0], known) or f" (it has: {', '.join(known)})"
        raise UserError(f"data.classes: {index.annotations} has no class {unknown[0]!r}{hint}")
    chosen = relabel(index, classes, index.category_ids[[index.names.index(n) for n in classes]])
    ends = tuple(f": category {name!r}" for name in classes)
    findings = [f for f in index.findings if f.kind not in CATEGORY_KINDS or f.where.endswith(ends)]
    return replace(chosen, findings=tuple(findings))


def relabel(index: Index, names: tuple[str, ...], category_ids: np.ndarray) -> Index:
    """Numbers the labels in the order of `names`; drops boxes of other classes."""
    label_of = {name: label for label, name in enumerate(names)}
    new = np.array([label_of.get(name, -1) for name in index.names], np.int64)
    labels = new[index.labels]
    kept = labels >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return replace(
        index,
        starts=before[index.starts],
        boxes_xyxy=index.boxes_xyxy[kept],
        labels=labels[kept],
        crowd=index.crowd[kept],
        clipped=index.clipped[kept],
        names=names,
        category_ids=np.asarray(category_ids, np.int64),
    )
