"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST through torchvision's readers; never downloaded.

All images of a split are one array in memory. The test images of a data set are its validation split.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.store.index import Index, make_index
from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class ArrayFormat:
    """A data set whose splits are files of many images.

    Attributes:
        title: its name.
        reader: of torchvision.datasets.
        source: where people get the files.
    """

    title: str
    reader: str
    source: str


ARRAY_FORMATS = {
    "cifar10": ArrayFormat("CIFAR-10", "CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": ArrayFormat("CIFAR-100", "CIFAR100", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "mnist": ArrayFormat("MNIST", "MNIST", "https://yann.lecun.com/exdb/mnist"),
    "fashion_mnist": ArrayFormat(
        "Fashion-MNIST", "FashionMNIST", "https://github.com/zalandoresearch/fashion-mnist"
    ),
}


def read_array_split(form: str, root: Path, split: str) -> Index:
    """Reads `train` or `val` of one of `ARRAY_FORMATS`; the box of an image is the whole image.

    Args:
        form: a key of `ARRAY_FORMATS`.
        root: the folder that torchvision's reader takes.
        split: "train", or "val" for the test images.

    Raises:
        UserError: a file is missing or damaged; names the first one, and where it belongs.
    """
    from torchvision import datasets  # a second, which every command would pay

    kind = ARRAY_FORMATS[form]
    reader: Any = getattr(datasets, kind.reader)
    check = _check_cifar if form.startswith("cifar") else _check_mnist
    folder = check(reader, root, kind)
    data = reader(str(root), train=split == "train", download=False)
    pixels, labels = np.asarray(data.data), np.asarray(data.targets, np.int64)
    if len(pixels) != len(labels):
        raise UserError(f"{folder}: {len(pixels)} images and {len(labels)} labels in {split}")
    names = tuple(data.classes)
    if form == "mnist":  # torchvision's are "0 - zero" ...
        names = tuple(map(str, range(10)))
    return _make_array_index(folder, split, np.ascontiguousarray(pixels), labels, names)


def _make_array_index(
    folder: Path, split: str, pixels: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> Index:
    count, height, width = pixels.shape[:3]
    files = [f"{split}-{number:05d}.png" for number in range(count)]
    index = make_index(
        folder=folder,
        files=files,
        image_ids=np.arange(1, count + 1),
        sizes=np.tile([height, width], (count, 1)),
        owner=np.arange(count),
        boxes_xyxy=np.tile([0.0, 0.0, width, height], (count, 1)),
        labels=labels,
        crowd=np.zeros(count, bool),
        names=names,
        category_ids=np.arange(1, len(names) + 1),
        annotations=folder,
        findings=(),
        where=lambda row: files[row],
    )
    return replace(index, pixels=pixels)


def _check_cifar(reader: Any, root: Path, kind: ArrayFormat) -> Path:
    """The folder of the files; they are pickles, so only those with the published MD5 are opened."""
    from torchvision.datasets.utils import check_integrity

    folder = root / reader.base_folder
    meta = reader.meta
    wanted = [*reader.train_list, *reader.test_list, (meta["filename"], meta["md5"])]
    for name, md5 in wanted:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: no such file; get {reader.filename} ({kind.title}) from {kind.source} "
                f"and unpack it in {root}"
            )
        if not check_integrity(str(folder / name), md5):
            raise UserError(
                f"{folder / name}: not the published file of {kind.title} (its MD5 is not {md5}), "
                f"or damaged; unpack {reader.filename} again"
            )
    return folder


def _check_mnist(reader: Any, root: Path, kind: ArrayFormat) -> Path:
    """The folder of the files; the header of each says how many bytes follow."""
    folder = root / reader.__name__ / "raw"
    for packed, _ in reader.resources:
        path = folder / Path(packed).stem
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; get {packed} ({kind.title}) from {kind.source} and unpack it "
                f"in {folder}"
            )
        magic, header = (2051, 16) if "images" in path.name else (2049, 8)  # bytes
        with path.open("rb") as file:
            found, *shape = np.frombuffer(file.read(header).ljust(header, b"\0"), ">i4").tolist()
        if found != magic or path.stat().st_size != header + math.prod(shape):
            raise UserError(
                f"{path}: not a file of {kind.title}, or incomplete; unpack {packed} again"
            )
    return folder
