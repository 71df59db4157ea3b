"""Data sets, augmentations, loaders and image caches."""

import math
import os
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detector.anchors import flat
from detector.build.model import build_anchors
from detector.config import LARGEST_STRIDE, BagConfig, Config, DataConfig
from detector.data import (
    DARKNET_GREY,
    MIRRORING,
    Albumentations,
    Bag,
    Darknet,
    EpochOrder,
    Finding,
    ImageReader,
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
    describe,
    fingerprint,
    image_cache,
    in_memory,
    on_disk,
    positions_in_flight,
    read_split,
    repeat_factors,
    tile_buffer,
)
from detector.data.checks import start_lines
from detector.engine import ProcessGroup
from detector.errors import UserError
from detector.models import parse_cfg


@dataclass(frozen=True, slots=True)
class Data:
    """The two splits of a data set.

    Attributes:
        names: the class names, by label.
        findings: what the readers left out, or found strange.
        notes: lines on how the data set was read.
    """

    train: TrainSet
    val: ValSet
    names: tuple[str, ...]
    findings: list[Finding]
    notes: list[str]


def build_bag(config: BagConfig, *, mirrors: bool) -> Bag:
    """The augmentations of a sample; flips are off where a mirrored object is another one.

    Raises:
        UserError: a transform of albumentations that there is not, not with these arguments, or that
            mirrors where nothing may.
    """
    strengths = {name: getattr(config, name) for name in _STRENGTHS}
    if not mirrors:
        strengths |= {"flip_lr": 0.0, "flip_ud": 0.0}
        refused = [each.name for each in config.albumentations if each.name in MIRRORING]
        if refused:
            raise UserError(
                f"bag.albumentations: {refused[0]} mirrors, and the data YAML says mirrors: false; leave "
                f"it out"
            )
    chain = [(each.name, each.model_extra or {}) for each in config.albumentations]
    return Bag(**strengths, extra=Albumentations(chain) if chain else None)


_STRENGTHS = [field.name for field in fields(Bag) if field.name != "extra"]


def build_repeats(config: DataConfig, train: Index) -> np.ndarray | None:
    """How often each training image comes in an epoch, as `data.sampling` says; None is once."""
    if config.sampling == "none":
        return None
    if config.sampling == "class_balanced":
        return class_balance(train)
    return repeat_factors(train, config.sampling_threshold)


def build_train_sizes(config: Config) -> list[int]:
    """The sides that training batches may have, pixels; none where all have `data.size`."""
    factor, size, step = config.bag.multi_scale, config.data.size, LARGEST_STRIDE
    if factor == 1:
        return []
    first, last = math.ceil(size / factor / step), math.floor(size * factor / step)
    return [step * number for number in range(first, last + 1)]


def build_data(config: Config) -> Data:
    """Both splits of the config's data set.

    Raises:
        UserError: nothing there, of no known format, or splits with different classes.
    """
    about, root = describe(config.data.dataset)
    classes = config.data.classes
    train, val = (read_split(about, root, split, classes) for split in ("train", "val"))
    if train.names != val.names:
        raise UserError(
            f"{val.annotations}: its {len(val.names)} categories are not the "
            f"{len(train.names)} of {train.annotations.name}"
        )
    if not len(train):
        raise UserError(f"{train.annotations}: it lists no images to train on")
    if train.crowd.all():
        raise UserError(
            f"{train.annotations}: none of its {len(train)} images has a labelled object, so there is "
            f"nothing to learn; python tools/check_data.py {config.data.dataset} says what was found"
        )
    bag = build_bag(config.bag, mirrors=about.mirrors)
    if isinstance(bag.extra, Albumentations):
        smallest = min(build_train_sizes(config), default=config.data.size)
        bag.extra.try_on(smallest, smallest)
    return Data(
        train=TrainSet(
            ImageReader(train, max(build_train_sizes(config), default=config.data.size)),
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
    config: Config, train: TrainSet, processes: ProcessGroup | None = None
) -> list[str]:
    """Keeps decoded training images as `data.cache` or `data.tile_buffer` says; what to say about it.

    Raises:
        UserError: nothing can be kept on this system, or there is no folder for it.
    """
    about, processes = config.data, processes or ProcessGroup()
    if about.cache == "none" and not about.tile_buffer:
        return []
    if not hasattr(os, "pwrite"):
        raise UserError("data.cache and data.tile_buffer are not for this system; leave them out")
    index, side = train.reader.index, train.reader.side or about.size
    if about.cache == "disk":
        _, root = describe(about.dataset)
        room = on_disk(root, cache_name(index, "train", side))
    else:
        room = processes.first_here(in_memory())
    if about.cache == "none":
        behind = positions_in_flight(require_batch_size(config), about.workers)
        train.reader.store, line = tile_buffer(index, side, about.tile_buffer + behind, room)
    else:
        train.reader.store, line = image_cache(index, side, room, about.cache_limit)
    return [line]


def label_lines(config: Config, data: Data) -> list[str]:
    """What is worth saying of the labels before a run: nothing, or a few lines."""
    return start_lines(
        config.data.dataset,
        {"train": data.train.reader.index, "val": data.val.reader.index},
        size=config.data.size,
        anchors=flat(build_anchors(config.model, len(data.names))),
        ratio=config.loss.anchor_ratio,
    )


def build_val(config: Config) -> ValSet:
    """The validation split alone."""
    about, root = describe(config.data.dataset)
    return _val_set(config, read_split(about, root, "val", config.data.classes))


def build_reader(dataset: str) -> ImageReader:
    """The validation images, for pictures.

    Raises:
        UserError: they cannot be read.
    """
    about, root = describe(dataset)
    return ImageReader(read_split(about, root, "val"))


def _val_set(config: Config, index: Index) -> ValSet:
    return ValSet(ImageReader(index), build_protocol(config), batch_size=config.eval.batch_size)


def build_protocol(config: Config) -> Placement:
    """How validation images are placed: `eval.protocol` at `data.size`, or at a darknet cfg's size."""
    size, name = config.data.size, config.eval.protocol
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
    config: Config, dataset: TrainSet, *, pin_memory: bool, rank: int = 0, processes: int = 1
) -> TrainLoader:
    """Training batches; of several processes, the share of number `rank`."""
    return TrainLoader(
        dataset,
        batch_size=require_batch_size(config),
        workers=config.data.workers,
        pin_memory=pin_memory,
        sides=build_train_sizes(config),
        rank=rank,
        processes=processes,
    )


def require_batch_size(config: Config) -> int:
    """Images a batch.

    Raises:
        UserError: it is still `auto`.
    """
    if config.train.batch_size == "auto":
        raise UserError(
            "train.batch_size: auto becomes a number when tools/train.py starts a run; give one here"
        )
    return config.train.batch_size


def describe_data(data: Data) -> dict[str, Any]:
    """What is written down of a run's data: counts and a digest of both splits, and what was found."""
    return {
        "train": fingerprint(data.train.reader.index),
        "val": fingerprint(data.val.reader.index),
        "findings": dict(Counter(finding.kind for finding in data.findings)),
    }
