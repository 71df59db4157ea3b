"""Images and boxes, from files to batches.

Read `description` (the data YAML), `index` (annotations, whatever their format), `coco`, `yolo_txt` and
`voc` (its readers; the last two through `pairs`), `cache`, `dataset` (one sample; with `geometry`,
`mosaic`, `mix`, `colour`, `extra`; `streams` says from where their randomness comes; `image_store` keeps
decoded images), `sampling` and `loader` (which images make up an epoch; batches), `convert` (into other
formats); `digits` makes the embedded data set.
"""

from detector.data.augment.albumentations_adapter import MIRRORING, Albumentations
from detector.data.augment.geometry import DARKNET_GREY, letterbox
from detector.data.batches import (
    EpochSampler,
    TrainLoader,
    collate,
    positions_in_flight,
    val_loader,
)
from detector.data.box_sizes import letterboxed_sizes
from detector.data.convert import coco_tree
from detector.data.dataset import Bag, ImageReader, Item, TrainSet, ValSet
from detector.data.placement import Darknet, Letterbox, Placement, PyTorchYOLOv4, Rectangular
from detector.data.readers.coco import read_coco, read_json
from detector.data.readers.coco_names import COCO_NAMES
from detector.data.readers.description import (
    DatasetConfig,
    annotation_file,
    describe,
    read_split,
    splits,
)
from detector.data.sampling import EpochOrder, class_balance, repeat_factors
from detector.data.store.fingerprint import fingerprint
from detector.data.store.image_files import UnreadableImage, image_files, read_image, unlabelled
from detector.data.store.image_store import cache_name, image_cache, in_memory, on_disk, tile_buffer
from detector.data.store.index import Finding, Index, Texts
from detector.data.subset import write_subset

__all__ = [
    "COCO_NAMES",
    "DARKNET_GREY",
    "MIRRORING",
    "Albumentations",
    "Bag",
    "Darknet",
    "DatasetConfig",
    "EpochOrder",
    "EpochSampler",
    "Finding",
    "Index",
    "Item",
    "Letterbox",
    "Placement",
    "PyTorchYOLOv4",
    "ImageReader",
    "Rectangular",
    "Texts",
    "TrainLoader",
    "TrainSet",
    "UnreadableImage",
    "ValSet",
    "annotation_file",
    "cache_name",
    "coco_tree",
    "class_balance",
    "collate",
    "describe",
    "fingerprint",
    "image_cache",
    "image_files",
    "in_memory",
    "letterbox",
    "letterboxed_sizes",
    "on_disk",
    "positions_in_flight",
    "read_coco",
    "read_image",
    "read_json",
    "read_split",
    "splits",
    "tile_buffer",
    "repeat_factors",
    "unlabelled",
    "val_loader",
    "write_subset",
]
