"""A YOLOv4-family object-detection training toolkit.

    from detector import Detector

    model = Detector("runs/digits/best.pt")
    found = model("photo.jpg")

`train` and `evaluate` are what the commands do. They are imported when they are first used, so that
`import detector` takes no time.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.api.detections import Detection, Detections
    from detector.api.detector import Detector
    from detector.api.shortcuts import TrainingResult, evaluate, train
    from detector.errors import UserError

_HOMES = {
    "Detection": "detector.api.detections",
    "Detections": "detector.api.detections",
    "Detector": "detector.api.detector",
    "TrainingResult": "detector.api.shortcuts",
    "UserError": "detector.errors",
    "evaluate": "detector.api.shortcuts",
    "train": "detector.api.shortcuts",
}

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "TrainingResult",
    "UserError",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # its one home is pyproject.toml
        return importlib.metadata.version("detector")
    if name not in _HOMES:
        raise AttributeError(f"module 'detector' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
