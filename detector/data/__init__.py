"""Images and boxes, from files to batches.

Read `description` (the data YAML), `coco` (annotations -> flat index), `dataset` (one sample; with
`geometry`, `colour`, `mosaic`), `loader` (batches); `digits` makes the embedded data set.
"""

from detector.data.coco import Index, read_coco
from detector.data.dataset import Bag, Reader, TrainSet, UnreadableImage, ValSet, read_image
from detector.data.description import DatasetConfig, describe, read_split
from detector.data.geometry import letterbox
from detector.data.loader import TrainLoader, collate, val_loader

__all__ = [
    "Bag",
    "DatasetConfig",
    "Index",
    "Reader",
    "TrainLoader",
    "TrainSet",
    "UnreadableImage",
    "ValSet",
    "collate",
    "describe",
    "letterbox",
    "read_coco",
    "read_image",
    "read_split",
    "val_loader",
]
