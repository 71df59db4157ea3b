"""Data sets, augmentations, loaders and image caches."""

import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from detector.anchors import flatten_anchors
from detector.build.augmentations import build_bag
from detector.build.model import build_anchors, is_classifier
from detector.command_names import format_command
from detector.config import LARGEST_STRIDE, Config, DataConfig
from detector.data import (
    DARKNET_GREY,
    CentreCrop,
    Darknet,
    EpochOrder,
    EpochSampler,
    Finding,
    ImageReader,
    ImageStore,
    Index,
    Letterbox,
    Placement,
    PyTorchYOLOv4,
    Rectangular,
    TrainLoader,
    TrainSet,
    ValSet,
    cache_name,
    class_balance,
    fingerprint,
    free_memory,
    load_data_yaml,
    measure_image_cache,
    open_disk_file,
    open_image_cache,
    open_memory_file,
    open_tile_buffer,
    positions_in_flight,
    read_split,
    repeat_factors,
)
from detector.data.checks import describe_label_problems
from detector.engine import ProcessGroup
from detector.errors import UserError
from detector.models import parse_cfg

CACHED_SHARE = 0.25  # of the free memory, for decoded images that nobody asked to be kept
GB = 10**9
MAX_WORKERS, MAX_WORKERS_PER_CORE = 64, 4  # beyond these, starting them takes minutes


@dataclass(frozen=True, slots=True)
class Data:
    """Both splits of a data set.

    Attributes:
        names: the class names, by label.
        findings: what the readers skipped or report as odd.
        notes: lines on how the data set was read.
    """

    train: TrainSet
    val: ValSet
    names: tuple[str, ...]
    findings: list[Finding]
    notes: list[str]

    def with_mosaic_until(self, epoch: int) -> "Data":
        """The same data, whose training samples mix no images from `epoch` on."""
        return replace(self, train=self.train.with_mosaic_until(epoch))

    def with_store(self, store: ImageStore | None) -> "Data":
        """The same data, whose training images are read through a cache of decoded images."""
        return replace(self, train=self.train.with_store(store))


def choose_image_size(config: Config, train: Index) -> int:
    """Longer images than this are shrunk when they are read, pixels; none for a classifier's crops."""
    largest = max(build_train_sizes(config), default=config.data.size)
    if not is_classifier(config.model):
        return largest
    return max(largest, int(train.sizes.max(initial=1)))


def require_one_class_per_image(*splits: Index) -> None:
    """Checks that a classifier can be trained on data.

    Raises:
        UserError: an image has no class or several.
    """
    for index in splits:
        if (np.diff(index.starts) != 1).any():
            raise UserError(
                f"{index.annotations}: a classifier needs images of one class each: a folder per class "
                f"(`format: folders` in the data YAML), such as digits-cls.yaml"
            )


def build_repeats(config: DataConfig, train: Index) -> np.ndarray | None:
    """How often each training image occurs in an epoch, by `data.sampling`; None: once."""
    if config.sampling == "none":
        return None
    if config.sampling == "class_balanced":
        return class_balance(train)
    return repeat_factors(train, config.sampling_threshold)


def build_train_sizes(config: Config) -> list[int]:
    """Heights and widths that training batches may have, pixels; empty if all have `data.size`."""
    factor, size, step = config.bag.multi_scale, config.data.size, LARGEST_STRIDE
    if factor == 1:
        return []
    first, last = math.ceil(size / factor / step), math.floor(size * factor / step)
    return [step * number for number in range(first, last + 1)]


def require_workers(workers: int) -> None:
    """Refuses more data workers than any machine of this size can use: each is a process.

    Raises:
        UserError: names the largest number.
    """
    cores = os.cpu_count() or 1
    limit = max(MAX_WORKERS, MAX_WORKERS_PER_CORE * cores)
    if workers > limit:
        raise UserError(
            f"data.workers: {workers} processes on {cores} CPU cores; expected at most {limit}; "
            f"about one per core is fastest"
        )


def build_data(config: Config) -> Data:
    """Reads both splits of the config's data set.

    Raises:
        UserError: no data, an unknown format, no training objects, or splits with different classes; or
            too many workers.
    """
    require_workers(config.data.workers)
    data_yaml, root = load_data_yaml(config.data.dataset)
    classes = config.data.classes
    train, val = (read_split(data_yaml, root, split, classes) for split in ("train", "val"))
    if train.names != val.names:
        raise UserError(
            f"{val.annotations}: its {len(val.names)} classes differ from the "
            f"{len(train.names)} of {train.annotations.name}; both splits need the same ones"
        )
    if not len(train):
        raise UserError(f"{train.annotations}: no training images")
    if train.crowd.all():
        raise UserError(
            f"{train.annotations}: none of its {len(train)} images has a labelled object; for "
            f"details: {format_command('check_data', config.data.dataset)}"
        )
    if is_classifier(config.model):
        require_one_class_per_image(train, val)
    smallest = min(build_train_sizes(config), default=config.data.size)
    bag = build_bag(config, mirrors=data_yaml.mirrors, smallest=smallest)
    return Data(
        train=TrainSet(
            ImageReader(train, choose_image_size(config, train)),
            bag,
            size=config.data.size,
            seed=config.train.seed,
            mosaic_until=config.train.epochs - config.bag.mosaic_off_epochs,
            order=EpochOrder(len(train), config.train.seed, build_repeats(config.data, train)),
            window=config.data.tile_buffer,
        ),
        val=_val_set(config, val),
        names=train.names,
        findings=[*train.findings, *val.findings],
        notes=list(train.notes),
    )


def build_image_store(
    config: Config, reader: ImageReader, process_group: ProcessGroup | None = None
) -> tuple[ImageStore | None, list[str]]:
    """The cache of decoded training images of `reader`, by `data.cache` or `data.tile_buffer`.

    Returns:
        The cache, or None; and messages on its size.

    Raises:
        UserError: this system supports no cache, or no folder for it can be written to.
    """
    settings, process_group = config.data, process_group or ProcessGroup()
    index, max_size = reader.index, reader.max_size or settings.size
    if index.pixels is not None:  # they are in memory already, shared by all workers
        return None, []
    cache, lines = settings.cache, []
    if cache == "auto":  # ranks see different amounts of free memory
        cache, lines = process_group.broadcast_on_node(_choose_cache(settings, index, max_size))
    if cache == "none" and not settings.tile_buffer:
        return None, lines
    if not hasattr(os, "pwrite"):
        raise UserError("data.cache and data.tile_buffer do not work on this system; remove them")
    if cache == "disk":
        _, root = load_data_yaml(settings.dataset)
        file = open_disk_file(root, cache_name(index, "train", max_size))
    else:
        file = process_group.broadcast_on_node(open_memory_file())
    if cache == "none":
        in_flight = positions_in_flight(require_batch_size(config), settings.workers)
        store, line = open_tile_buffer(index, max_size, settings.tile_buffer + in_flight, file)
    else:
        store, line = open_image_cache(index, max_size, file, settings.cache_limit)
    return store, [line]


def _choose_cache(
    settings: DataConfig, index: Index, max_size: int
) -> tuple[Literal["ram", "none"], list[str]]:
    """What `data.cache: auto` becomes, and a line if the images need too much memory."""
    if settings.tile_buffer or not hasattr(os, "pwrite"):
        return "none", []
    needed, free = measure_image_cache(index, max_size), free_memory()
    if needed <= CACHED_SHARE * free:
        return "ram", []
    line = (
        f"data.cache: {len(index)} training images need {needed / GB:.2f} GB in memory, more than a "
        f"quarter of what is free ({free / GB:.2f} GB): they are read from their files each time"
    )
    return "none", [line]


def find_unlabelled_validation(val: Index) -> list[str]:
    """A line if no validation image has an object of the trained classes, so that there is no AP."""
    if not val.crowd.all():
        return []
    return [
        f"validation: none of its {len(val)} images has a labelled object of the {len(val.names)} "
        f"trained classes: AP is none, and best.pt will hold the newest weights"
    ]


def require_batch_statistics(config: Config, images: int, world_size: int) -> None:
    """Checks that BatchNorm sees more than one value per channel in every training batch.

    The smallest map of a network is one cell per `LARGEST_STRIDE` pixels.

    Args:
        config: of the run, without `auto`.
        images: number of training images in an epoch.
        world_size: number of ranks that share a batch.

    Raises:
        UserError: a batch of one image at the smallest size has one value.
    """
    size = min(build_train_sizes(config), default=config.data.size)
    batch = require_batch_size(config)
    smallest = min(images % batch or batch, batch)
    if world_size > 1 and not config.train.sync_bn:
        smallest //= world_size
    if size > LARGEST_STRIDE or smallest > 1:
        return
    raise UserError(
        f"{size} px and a batch of one image ({images} images in batches of {batch}) leave BatchNorm one "
        f"value per channel; take data.size={2 * LARGEST_STRIDE} or more, or another train.batch_size"
    )


def find_label_problems(config: Config, data: Data) -> list[str]:
    """Label problems worth reporting before a run, as up to five lines; none of a classifier's data."""
    if is_classifier(config.model):
        return []
    return describe_label_problems(
        config.data.dataset,
        {"train": data.train.reader.index, "val": data.val.reader.index},
        size=config.data.size,
        anchors=flatten_anchors(build_anchors(config.model, len(data.names))),
        ratio=config.loss.anchor_ratio,
    )


def build_val(config: Config, split: str = "val") -> ValSet:
    """The validation split alone; or another split, with its images placed as in an evaluation."""
    require_workers(config.data.workers)
    data_yaml, root = load_data_yaml(config.data.dataset)
    return _val_set(config, read_split(data_yaml, root, split, config.data.classes))


def build_reader(dataset: str) -> ImageReader:
    """The validation images, for pictures.

    Raises:
        UserError: they cannot be read.
    """
    data_yaml, root = load_data_yaml(dataset)
    return ImageReader(read_split(data_yaml, root, "val"))


def _val_set(config: Config, index: Index) -> ValSet:
    return ValSet(
        ImageReader(index),
        build_placement(config),
        batch_size=config.eval.batch_size,
        noise=config.eval.noise,
    )


def build_placement(config: Config) -> Placement:
    """How validation images are placed: `eval.protocol` at `data.size`, or at a darknet cfg's size."""
    size, name = config.data.size, config.eval.protocol
    if is_classifier(config.model):
        return CentreCrop(size)
    if name == "pytorch_yolov4":
        return PyTorchYOLOv4(size)
    if name == "letterbox":
        return Letterbox(size)
    if name == "rectangular":
        return Rectangular(size, grid=LARGEST_STRIDE)
    if config.model.darknet_cfg is None:
        return Darknet(size, size)
    net = parse_cfg(config.model.darknet_cfg, config.model.arch)[0]
    height, width = net.whole("height", "416", least=32), net.whole("width", "416", least=32)
    if net.whole("letter_box", "0") and height == width:
        return Letterbox(height, grey=DARKNET_GREY)
    return Darknet(height, width)


def build_train_loader(
    config: Config, dataset: TrainSet, *, pin_memory: bool, rank: int = 0, world_size: int = 1
) -> TrainLoader:
    """Training batches, or the share of this rank."""
    return TrainLoader(
        dataset,
        batch_size=require_batch_size(config),
        workers=config.data.workers,
        pin_memory=pin_memory,
        sizes=build_train_sizes(config),
        rank=rank,
        world_size=world_size,
    )


def build_preview_set(config: Config, dataset: TrainSet, epoch: int) -> TrainSet:
    """The images of `dataset` with the bag of `config`, mosaics included in `epoch`."""
    return TrainSet(
        dataset.reader,
        build_bag(config, mirrors=True),
        size=dataset.size,
        seed=dataset.seed,
        mosaic_until=epoch + 1,
    )


def build_preview_sampler(config: Config, dataset: TrainSet) -> EpochSampler:
    """The keys of single samples of `dataset`, with sizes as in training."""
    return EpochSampler(dataset.order, 1, sizes=build_train_sizes(config))


def require_batch_size(config: Config) -> int:
    """Images per batch.

    Raises:
        UserError: it is still `auto`.
    """
    if config.train.batch_size == "auto":
        raise UserError("train.batch_size: auto becomes a number when a run starts; give one here")
    return config.train.batch_size


def describe_data(data: Data) -> dict[str, Any]:
    """What a run records about its data: counts and digests of both splits, and counts of findings."""
    return {
        "train": fingerprint(data.train.reader.index),
        "val": fingerprint(data.val.reader.index),
        "findings": dict(Counter(finding.kind for finding in data.findings)),
    }
