"""The index of published weight files, `weights/index.yaml`."""

import functools
import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from detector.config import PROJECT, DecoderConfig, load_yaml_as
from detector.errors import UserError
from detector.registry import nearest


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PublishedAP(_Entry):
    """A published result: AP, AP50, AP75, APs, APm, APl in per cent, as far as it was given."""

    split: Literal["val", "test-dev"]
    size: int
    ap: tuple[float, ...]
    source: str


class PublishedFile(_Entry):
    """One file as its authors published it.

    Attributes:
        name: by which `tools/get_weights.py` knows it.
        file: the file's name. publisher: who trained it.
        page: where it is published. url: of the file itself, where that is confirmed.
        size: bytes. sha256: where it is known.
        config: in `configs/`. cfg: the authors' own.
        order: of its convolutions, where the network has several.
        decoder, bn_eps: with which its authors run it.
        split_half: of yolov4-tiny.
        results: what was published of it.
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
    def saved_as(self) -> str:
        """The file's name here: its own, unless another publisher's file has the same."""
        stem = self.file.removesuffix(".weights")
        return self.file if self.partial or stem == self.name else f"{self.name}.weights"


class Index(_Entry):
    """All of them."""

    files: tuple[PublishedFile, ...]


@functools.cache
def published_files(path: Path = PROJECT / "weights" / "index.yaml") -> tuple[PublishedFile, ...]:
    """Every entry of the index."""
    return load_yaml_as(Index, path).files


def find_published(name: str) -> PublishedFile:
    """The entry of a name.

    Raises:
        UserError: there is none.
    """
    entries = {entry.name: entry for entry in published_files()}
    if name not in entries:
        hint = nearest(name, list(entries)) or f" (known: {', '.join(entries)})"
        raise UserError(f"{name}: no such entry in weights/index.yaml{hint}")
    return entries[name]


def published_as(path: Path) -> list[PublishedFile]:
    """The entries whose file has this name, size, and sha256 where one is known; darknet's first."""
    if not path.is_file():
        return []
    fitting = [entry for entry in published_files() if entry.size == path.stat().st_size]
    found = [entry for entry in fitting if entry.file == path.name]
    found = found or [entry for entry in fitting if entry.saved_as == path.name]
    if any(entry.sha256 for entry in found):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        exact = [entry for entry in found if entry.sha256 == digest]
        found = exact or [entry for entry in found if entry.sha256 is None]
    return sorted(found, key=lambda entry: entry.publisher != "darknet")
