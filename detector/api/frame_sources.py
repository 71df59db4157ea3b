"""Where `tools/detect.py` gets its images: files, globs, folders, video files, cameras and streams."""

import glob
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.data import UnreadableImage, list_images, read_image
from detector.errors import UserError, require_file

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
STREAM_SCHEMES = ("rtsp", "rtmp", "http", "https", "udp", "tcp")
REOPENINGS = 5  # of a stream in a row that gives no frame
REOPENING_SECONDS = 1.0  # before the first of them; twice as long before each next one
DEFAULT_FPS = 25.0  # of a video that does not say


@dataclass(frozen=True, slots=True)
class Frame:
    """An image to detect objects in.

    Attributes:
        name: a file name without suffix for what is written about it, unique within a run.
        source: the file, camera or stream it is from.
        number: of the frame in its video, from 0; None for an image file.
        image: uint8 [H, W, 3], RGB; None if it cannot be read.
        error: why it cannot be read.
    """

    name: str
    source: str
    number: int | None
    image: np.ndarray | None
    error: str = ""


class ImageFiles:
    """Image files.

    Attributes:
        name: the source of its frames; empty for image files.
        count: number of frames; None if unknown.
        fps: frames per second; None for image files.
    """

    fps = None

    name = ""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.count = paths, len(paths)

    def __iter__(self) -> Iterator[Frame]:
        for number, path in enumerate(self.paths, 1):
            name = path.stem if self.count == 1 else f"{number:04d}_{path.stem}"
            try:
                yield Frame(name, str(path), None, read_image(str(path)))
            except UnreadableImage as error:
                yield Frame(name, str(path), None, None, str(error))


class Video:
    """A video file; attributes as `ImageFiles`."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: OpenCV cannot read it.
        """
        self.path, self.name = path, str(path)
        require_file(path)
        capture = _open(self.name)
        if capture is None:
            raise UserError(f"{path}: not a video that OpenCV can read")
        self.fps = _read_fps(capture)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 else None
        capture.release()

    def __iter__(self) -> Iterator[Frame]:
        capture, number = _open(str(self.path)), 0
        while capture is not None:
            done, image = capture.read()
            if not done:
                break
            yield _make_frame(self.path.stem, str(self.path), number, image)
            number += 1
        if not number:
            yield Frame(self.path.stem, str(self.path), None, None, f"{self.path}: no frames")


class Stream:
    """A camera or a network stream, which is reopened when it drops; attributes as `ImageFiles`."""

    count = None

    def __init__(self, source: str) -> None:
        """`source`: a camera's number or an address.

        Raises:
            UserError: it cannot be opened.
        """
        self.source = self.name = source
        self._capture = _open(self._address)
        if self._capture is None:
            what = "camera" if source.isdigit() else "stream"
            raise UserError(f"{what} {source}: cannot be opened")
        self.fps = _read_fps(self._capture)

    @property
    def _address(self) -> Any:
        return int(self.source) if self.source.isdigit() else self.source

    def __iter__(self) -> Iterator[Frame]:
        name = f"camera{self.source}" if self.source.isdigit() else "stream"
        number, failures = 0, 0
        while True:
            done, image = (False, None) if self._capture is None else self._capture.read()
            if done and image is not None:
                failures = 0
                yield _make_frame(name, self.source, number, image)
                number += 1
                continue
            if failures == REOPENINGS:
                reason = f"{self.source}: no frame after {REOPENINGS} attempts to reopen it"
                yield Frame(name, self.source, None, None, reason)
                return
            time.sleep(REOPENING_SECONDS * 2**failures)
            failures += 1
            if self._capture is not None:
                self._capture.release()
            self._capture = _open(self._address)


FrameSource = ImageFiles | Video | Stream


def open_sources(words: Sequence[str]) -> list[FrameSource]:
    """The sources that a command line names, all image files together first.

    Args:
        words: image files, video files, folders of them, globs (`photos/*.jpg`), camera numbers, or
            addresses of streams.

    Raises:
        UserError: there is no such file, a pattern matches nothing, or a source cannot be opened.
    """
    images: list[Path] = []
    others: list[FrameSource] = []
    for word in words:
        if _is_stream(word):
            others.append(Stream(word))
        else:
            for path in _expand(word):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    others.append(Video(path))
                else:
                    images.append(path)
    return [ImageFiles(images), *others] if images else others


def _is_stream(word: str) -> bool:
    """Whether a word is a camera's number or an address, not a file."""
    scheme, colon, _ = word.partition("://")
    return bool(colon and scheme in STREAM_SCHEMES) or (word.isdigit() and not Path(word).exists())


def _expand(word: str) -> list[Path]:
    """The files of a word: a file, the images and videos of a folder, or what a pattern matches."""
    path = Path(word)
    if path.is_dir():
        videos = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        try:
            return [*list_images([word]), *videos]
        except UserError:
            if videos:
                return videos
            raise
    if path.exists() or not glob.has_magic(word):
        return list_images([word])
    found = sorted(p for p in map(Path, glob.glob(word, recursive=True)) if p.is_file())  # noqa: PTH207
    if not found:
        raise UserError(f"{word}: no file matches this pattern")
    return found


def _open(address: Any) -> cv2.VideoCapture | None:
    capture = cv2.VideoCapture(address)
    return capture if capture.isOpened() else None


def _read_fps(capture: cv2.VideoCapture) -> float:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps < 1000 else DEFAULT_FPS


def _make_frame(name: str, source: str, number: int, image: np.ndarray) -> Frame:
    return Frame(f"{name}_{number:06d}", source, number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
