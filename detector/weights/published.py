"""The published weight files, as `weights/index.yaml` lists them."""

import functools
import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from detector.config import DecoderConfig, description_folder, load_yaml_as
from detector.errors import UserError
from detector.registry import nearest


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PublishedAP(_Entry):
    """A published result.

    Attributes:
        split: of COCO. size: height and width of the input, pixels.
        ap: AP, AP50, AP75, APs, APm, APl in per cent, or the first of them.
        source: where it was published.
    """

    split: Literal["val", "test-dev"]
    size: int
    ap: tuple[float, ...]
    source: str


class PublishedFile(_Entry):
    """One file as its authors published it.

    Attributes:
        name: for `tools/get_weights.py`.
        file: its file name. publisher: who trained it.
        page: where it is published. url: of the file itself; None where no address is confirmed.
        size: bytes. sha256: None where it is unknown.
        config: of the network, in `configs/`. cfg: the authors' own.
        order: of its convolutions, for networks with more than one.
        decoder, bn_eps: with which its authors run it.
        split_half: of yolov4-tiny.
        partial: whether it holds the first layers only.
        results: published AP.
    """

    name: str
    file: str
    publisher: Literal["darknet", "PyTorch_YOLOv4", "ScaledYOLOv4"]
    page: str
    url: str | None = None
    size: int
    sha256: str | None = None
    config: str
    cfg: str
    order: str
    decoder: DecoderConfig
    bn_eps: float
    split_half: Literal["second", "first"] = "second"
    partial: bool = False
    results: tuple[PublishedAP, ...] = ()

    @property
    def local_name(self) -> str:
        """Its file name in `weights/`; not `file` where two publishers use the same name."""
        stem = self.file.removesuffix(".weights")
        return self.file if self.partial or stem == self.name else f"{self.name}.weights"


class PublishedIndex(_Entry):
    """The whole of `weights/index.yaml`."""

    files: tuple[PublishedFile, ...]


@functools.cache
def list_published() -> tuple[PublishedFile, ...]:
    """All entries of the index, in its order."""
    return load_yaml_as(PublishedIndex, description_folder("weights") / "index.yaml").files


def find_published(name: str) -> PublishedFile:
    """The entry with this name.

    Raises:
        UserError: there is none; suggests the nearest name.
    """
    entries = {entry.name: entry for entry in list_published()}
    if name not in entries:
        hint = nearest(name, list(entries)) or f" (known: {', '.join(entries)})"
        raise UserError(f"{name}: no such name in weights/index.yaml{hint}")
    return entries[name]


def match_published(path: Path) -> list[PublishedFile]:
    """The entries with a file's name, size and, where it is known, sha256; darknet's first."""
    if not path.is_file():
        return []
    same_size = [entry for entry in list_published() if entry.size == path.stat().st_size]
    matches = [entry for entry in same_size if entry.file == path.name]
    matches = matches or [entry for entry in same_size if entry.local_name == path.name]
    if any(entry.sha256 for entry in matches):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        exact = [entry for entry in matches if entry.sha256 == digest]
        matches = exact or [entry for entry in matches if entry.sha256 is None]
    return sorted(matches, key=lambda entry: entry.publisher != "darknet")
