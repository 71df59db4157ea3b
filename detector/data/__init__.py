"""Images and boxes, from files to batches.

Read `readers` first (annotation formats, the data YAML -> an `Index`), then `image_reader` (a sample by
number), `train_set` (with `bag`, `class_bag` and `augment`: draw, then apply) and `val_set` (with
`placement`), `sampling` and `loader` (the order of an epoch, batches). `store` has the index and
the caches; `checks` looks for mistakes in a data set, `writers` writes one, `digits` makes the
embedded one.
"""

from detector.data.augment.albumentations_adapter import MIRRORING, Albumentations
from detector.data.augment.geometry import DARKNET_GREY, letterbox
from detector.data.bag import Bag
from detector.data.class_bag import ClassBag
from detector.data.image_reader import ImageReader
from detector.data.loader import (
    EpochSampler,
    TrainLoader,
    collate,
    positions_in_flight,
    val_loader,
)
from detector.data.placement import (
    CentreCrop,
    Darknet,
    Letterbox,
    Placement,
    PyTorchYOLOv4,
    Rectangular,
)
from detector.data.readers.coco import find_category_ids, read_coco, read_json
from detector.data.readers.coco_names import COCO_NAMES
from detector.data.readers.data_yaml import DatasetConfig, load_data_yaml
from detector.data.readers.splits import SPLITS, find_annotation_file, list_splits, read_split
from detector.data.sampling import EpochOrder, class_balance, repeat_factors
from detector.data.scaled_boxes import letterboxed_box_sizes
from detector.data.store.fingerprint import fingerprint
from detector.data.store.free_memory import free_memory
from detector.data.store.image_files import (
    UnreadableImage,
    decode_image,
    list_images,
    read_image,
    sample_without_labels,
)
from detector.data.store.image_header import read_header
from detector.data.store.image_store import (
    ImageStore,
    cache_name,
    measure_image_cache,
    open_disk_file,
    open_image_cache,
    open_memory_file,
    open_tile_buffer,
)
from detector.data.store.index import Finding, Index, StringArray
from detector.data.train_set import TrainSet
from detector.data.val_set import ValSet
from detector.data.writers.convert import coco_tree
from detector.data.writers.folds import Pool, read_pool, write_folds
from detector.data.writers.subset import write_subset
from detector.structures import LoadedSample

__all__ = [
    "Albumentations",
    "Bag",
    "COCO_NAMES",
    "CentreCrop",
    "ClassBag",
    "DARKNET_GREY",
    "Darknet",
    "DatasetConfig",
    "EpochOrder",
    "EpochSampler",
    "Finding",
    "ImageReader",
    "ImageStore",
    "Index",
    "Letterbox",
    "LoadedSample",
    "MIRRORING",
    "Placement",
    "Pool",
    "PyTorchYOLOv4",
    "Rectangular",
    "SPLITS",
    "StringArray",
    "TrainLoader",
    "TrainSet",
    "UnreadableImage",
    "ValSet",
    "cache_name",
    "class_balance",
    "coco_tree",
    "collate",
    "decode_image",
    "find_annotation_file",
    "find_category_ids",
    "fingerprint",
    "letterbox",
    "letterboxed_box_sizes",
    "list_images",
    "list_splits",
    "load_data_yaml",
    "open_disk_file",
    "free_memory",
    "measure_image_cache",
    "open_image_cache",
    "open_memory_file",
    "open_tile_buffer",
    "positions_in_flight",
    "read_coco",
    "read_header",
    "read_image",
    "read_json",
    "read_pool",
    "read_split",
    "repeat_factors",
    "sample_without_labels",
    "val_loader",
    "write_folds",
    "write_subset",
]
