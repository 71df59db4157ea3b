"""What an exported file says about itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detector.command_names import format_command
from detector.errors import UserError

VERSION = 1
MARK = "detector_export"  # the key whose value is VERSION; a file without it is of another project


@dataclass(frozen=True, slots=True)
class ExportMetadata:
    """All that is needed to prepare images for an exported file and to read its outputs.

    Attributes:
        names: the class names, by label.
        strides: pixels per cell, by level.
        decoder: how boxes were decoded, in words; the file has done it.
        precision: fp32, fp16 or int8.
        shape: (batch, height, width) if they are fixed.
        size: image size in pixels that the model was exported for.
        nms: whether suppression is inside, with the three values below.
        conf: confidence threshold in [0, 1], exclusive.
        nms_iou: a box is suppressed if its IoU with a better one of its class exceeds this.
        max_detections: per image.
        config: the whole config as plain values.
    """

    names: tuple[str, ...]
    strides: tuple[int, ...]
    decoder: str
    precision: str
    shape: tuple[int, int, int] | None
    size: int
    nms: bool
    conf: float
    nms_iou: float
    max_detections: int
    config: dict[str, Any]

    def to_strings(self) -> dict[str, str]:
        """As keys and texts, each value as JSON."""
        values = {name: json.dumps(getattr(self, name)) for name in self.__dataclass_fields__}
        return {MARK: str(VERSION), **values}

    @classmethod
    def from_strings(cls, values: Mapping[str, str], source: str) -> "ExportMetadata":
        """Reads what `to_strings` made.

        Args:
            values: of the file; may hold other keys.
            source: the file's name for messages.

        Raises:
            UserError: the file was not written by this toolkit, by a newer one, or was edited.
        """
        if MARK not in values:
            raise UserError(
                f"{source}: it holds no metadata of this toolkit, so its classes and outputs are "
                f"unknown; export the model with {format_command('export')}"
            )
        if values[MARK] != str(VERSION):
            raise UserError(
                f"{source}: its metadata have version {values[MARK]}, expected {VERSION}; "
                f"export the model again"
            )
        try:
            content = {name: json.loads(values[name]) for name in cls.__dataclass_fields__}
            shape = content["shape"]
            content["shape"] = None if shape is None else tuple(map(int, shape))
            content["names"] = tuple(map(str, content["names"]))
            content["strides"] = tuple(map(int, content["strides"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{source}: its metadata are damaged ({error}); export the model again"
            ) from None
        return cls(**content)

    def __str__(self) -> str:
        shape = "any batch and size"
        if self.shape is not None:
            batch, height, width = self.shape
            shape = f"batch {batch}, {height} x {width} px"
        nms = f", NMS inside (conf {self.conf:g}, IoU {self.nms_iou:g})" if self.nms else ""
        return f"{self.precision}, {len(self.names)} classes, {shape}{nms}"
