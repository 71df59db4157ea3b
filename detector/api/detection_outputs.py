"""What `tools/detect.py` writes: pictures and videos, JSON lines, YOLO and COCO files, crops."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import cv2

from detector.api.detections import Detections
from detector.api.frame_sources import Frame
from detector.errors import UserError, writing
from detector.visualize.draw import save_image


class Output(Protocol):
    """Something that is written about each frame."""

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        ...

    def close(self) -> None:
        """Finishes the files."""
        ...


class Outputs:
    """Several outputs, closed together whatever happens."""

    def __init__(self, outputs: list[Output]) -> None:
        self._outputs = outputs

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes a frame to each."""
        for output in self._outputs:
            output.write(frame, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for output in self._outputs:
            output.close()


class Pictures:
    """Image files with boxes drawn, and for each video a video of the same size and fps."""

    def __init__(self, folder: Path, fps: dict[str, float]) -> None:
        """`fps`: frames per second of each video, by source."""
        self._folder, self._fps = folder, fps
        self._writers: dict[str, cv2.VideoWriter] = {}

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        picture = found.plot()
        if frame.number is None:
            save_image(self._folder / f"{frame.name}.jpg", picture)
            return
        if frame.source not in self._writers:
            self._writers[frame.source] = self._open(frame, picture.shape[1], picture.shape[0])
        self._writers[frame.source].write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finishes the files."""
        for writer in self._writers.values():
            writer.release()

    def _open(self, frame: Frame, width: int, height: int) -> cv2.VideoWriter:
        stem = frame.name.rpartition("_")[0]
        path, number = self._folder / f"{stem}.mp4", 1
        while path.exists():
            number += 1
            path = self._folder / f"{stem}-{number}.mp4"
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, self._fps[frame.source], (width, height))
        if not writer.isOpened():
            raise UserError(f"{path}: cannot be written, or OpenCV has no encoder for mp4")
        return writer


class JsonLines:
    """A line of JSON per frame: source, frame, width, height, detections."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = _open_text(path)

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        height, width = found.image.shape[:2]
        row = {
            "source": frame.source,
            "frame": frame.number,
            "width": width,
            "height": height,
            "detections": [
                {
                    "name": each.name,
                    "label": each.label,
                    "score": each.score,
                    "box_xyxy": each.box_xyxy,
                }
                for each in found
            ],
        }
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Finishes the files."""
        self._file.close()


class YoloLabels:
    """A text file per frame: `class x y width height score`, fractions of the image's size."""

    def __init__(self, folder: Path) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        text = found.to_yolo()
        path = self._folder / f"{frame.name}.txt"
        with writing(path):
            path.write_text(text + "\n" if text else "", encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


class CocoFile:
    """One file in COCO's layout: images, categories, and the detections as annotations with a score."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        _open_text(path).close()  # before the work
        self._path = path
        self._content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
        }

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        images, annotations = self._content["images"], self._content["annotations"]
        height, width = found.image.shape[:2]
        name = frame.source if frame.number is None else frame.name
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for row in found.to_coco(image_id):
            area = row["bbox"][2] * row["bbox"][3]
            annotations.append({"id": len(annotations) + 1, **row, "area": area, "iscrowd": 0})

    def close(self) -> None:
        """Finishes the files."""
        with writing(self._path):
            self._path.write_text(json.dumps(self._content), encoding="utf-8")


class Crops:
    """An image file per detection, in a folder per class."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, frame: Frame, found: Detections) -> None:
        """Writes what was found in a frame."""
        for number, (crop, each) in enumerate(zip(found.crop(), found, strict=True)):
            folder = self._folder / _make_file_name(each.name)
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            save_image(folder / f"{frame.name}_{number:03d}.jpg", crop)

    def close(self) -> None:
        """Nothing is open."""


def _make_file_name(name: str) -> str:
    """A class name without characters that file names cannot have."""
    return "".join("_" if c in '/\\:*?"<>|' or ord(c) < 32 else c for c in name).strip(". ") or "_"


def _open_text(path: Path) -> TextIO:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
