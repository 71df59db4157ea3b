"""The one file where configuration meets constructors: one short function a noun."""

import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detector.anchors import Anchors, cluster_anchors, flat, measure_fit
from detector.config import (
    LARGEST_STRIDE,
    LEAST_BUFFER,
    ActivationConfig,
    BagConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EvalConfig,
    ModelConfig,
    PartActivations,
    ScheduleConfig,
    TrainConfig,
    config_to_dict,
)
from detector.config.duration import seconds
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
    annotation_file,
    cache_name,
    class_balance,
    coco_tree,
    describe,
    fingerprint,
    image_cache,
    in_memory,
    letterboxed_sizes,
    on_disk,
    positions_in_flight,
    read_json,
    read_split,
    repeat_factors,
    tile_buffer,
    val_loader,
)
from detector.data.checks import plot_labels, start_lines
from detector.decode import Decoder
from detector.device import keep_freed_memory
from detector.engine import (
    OPTIMIZERS,
    TRACKERS,
    CheckpointInterval,
    CheckpointSaver,
    Console,
    CsvLog,
    EventLog,
    Hardware,
    LRCurve,
    Manifest,
    MemoryProbe,
    ModelEMA,
    Observer,
    ProcessGroup,
    RunFolder,
    RunPlots,
    Schedule,
    SelfAdversary,
    ThroughputMonitor,
    TrackerLog,
    TrainBatchPicture,
    Trainer,
    ValBatchPicture,
    compute_deterministically,
    curve,
    even_share,
    freeze,
    largest_that_fits,
    require_trackers,
)
from detector.errors import UserError
from detector.evaluation import CocoAP, Evaluator, GroundTruth, make_tta_views
from detector.losses import BALANCE, YOLOLoss
from detector.models import (
    VARIANTS,
    YOLO,
    Classifier,
    DarknetNet,
    Variant,
    parse_cfg,
)
from detector.nn import (
    ActFactory,
    BatchNormSettings,
    DropBlock2d,
    activation,
    synchronise_batch_norms,
)
from detector.postprocess import Postprocess, select, select_darknet
from detector.registry import nearest
from detector.structures import ImageDetections
from detector.visualize.predictions import draw_ground_truth_and_detections

Detector = YOLO | DarknetNet
DARKNET_EPS, PYTORCH_EPS = 1e-5, 1e-4  # of BatchNorm


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


def build_activation(spec: str | ActivationConfig) -> ActFactory:
    """A registered activation, by its name or by name and parameters."""
    if isinstance(spec, str):
        return activation(spec)
    return activation(spec.name, **(spec.model_extra or {}))


def build_decoder(config: DecoderConfig | None, levels: int) -> Decoder:
    """How the model's raw values become boxes; (2s)^2 unless said.

    Raises:
        UserError: values for another number of levels.
    """
    if config is None:
        return Decoder()
    if len(config.scale_x_y) not in (1, levels):
        raise UserError(
            f"model.decoder.scale_x_y has {len(config.scale_x_y)} values; the network has "
            f"{levels} levels"
        )
    return Decoder(config.size, config.scale_x_y)


def build_model(config: ModelConfig, num_classes: int) -> Detector:
    """The detector, freshly initialised from torch's generator.

    Raises:
        UserError: an unknown name, a classifier, anchors or decoder for another number of levels, or a
            cfg for another number of classes.
    """
    if config.darknet_cfg is not None:
        return _build_darknet(config, config.darknet_cfg, num_classes)
    variant = find_variant(config)
    backbone, part_act, norm = _build_backbone(config, variant)
    if variant.neck is None:
        raise UserError(f"model.arch {config.arch} is a classifier; it finds no boxes")
    neck = variant.neck(backbone.out_channels, act=part_act("neck"), norm=norm)
    if config.anchors == "auto":
        raise UserError(
            "model.anchors: auto becomes numbers when tools/train.py starts a run, or by "
            "tools/cluster_anchors.py; without a data set, give a list or leave it out"
        )
    anchors = config.anchors or variant.anchors
    levels = len(backbone.strides)
    if len(anchors) != levels:
        raise UserError(
            f"model.anchors has {len(anchors)} lists; {config.arch} has {levels} levels"
        )
    head = variant.head(
        neck.out_channels,
        num_classes=num_classes,
        num_anchors=len(anchors[0]),
        strides=backbone.strides,
        act=part_act("head"),
        norm=norm,
    )
    return YOLO(
        backbone,
        neck,
        head,
        anchors=anchors,
        strides=backbone.strides,
        decoder=build_decoder(config.decoder, levels),
        orders=variant.orders,
    )


def build_anchors(config: ModelConfig, num_classes: int) -> Anchors:
    """The anchors of a network, by level; its published ones where the config says `auto`.

    Raises:
        UserError: a classifier, or a cfg for another number of classes.
    """
    if config.darknet_cfg is not None:
        model = _build_darknet(config, config.darknet_cfg, num_classes)
        return tuple(tuple((w, h) for w, h in level) for level in model.anchors.tolist())
    variant = find_variant(config)
    if variant.neck is None:
        raise UserError(f"model.arch {config.arch} is a classifier; it has no anchors")
    return variant.anchors if config.anchors in (None, "auto") else config.anchors


def find_anchors(config: Config, index: Index, start: Anchors, seed: int = 0) -> Anchors:
    """Anchors for the boxes of a split at `data.size`, as many as `start` has; crowds do not count.

    Raises:
        UserError: too few boxes.
    """
    sizes = letterboxed_sizes(index, config.data.size)[~index.crowd]
    try:
        return cluster_anchors(sizes, start, ratio=config.loss.anchor_ratio, seed=seed)
    except ValueError as error:
        raise UserError(
            f"{index.annotations}: too few boxes: {error}; leave model.anchors out to keep the "
            f"network's published ones"
        ) from None


def resolve_anchors(config: Config, train: Index) -> tuple[Config, list[str]]:
    """The config with numbers in the place of `model.anchors: auto`, and what to say about them.

    Raises:
        UserError: too few boxes, or a darknet cfg, which brings its own.
    """
    if config.model.anchors != "auto":
        return config, []
    if config.model.darknet_cfg is not None:
        raise UserError(f"model.anchors: auto: {config.model.arch} fixes them; change them there")
    published = build_anchors(config.model, len(train.names))
    anchors = find_anchors(config, train, published)
    sizes = letterboxed_sizes(train, config.data.size)[~train.crowd]
    before, after = (
        measure_fit(sizes, flat(each), config.loss.anchor_ratio) for each in (published, anchors)
    )
    words = "  ".join(f"{w:g},{h:g}" for w, h in flat(anchors))
    lines = [f"anchors of the network: {before}", f"anchors found: {after}: {words}"]
    return with_anchors(config, anchors), lines


def with_anchors(config: Config, anchors: Anchors | None) -> Config:
    """The config with other anchors; None are the network's published ones."""
    model = config.model.model_copy(update={"anchors": anchors})
    return config.model_copy(update={"model": model})


def build_classifier(config: ModelConfig, num_classes: int) -> Classifier:
    """A backbone that classifies, freshly initialised."""
    backbone, _, _ = _build_backbone(config, find_variant(config))
    return Classifier(backbone, num_classes=num_classes)


def build_norm(config: ModelConfig) -> BatchNormSettings:
    """How every BatchNorm counts; eps is the publisher's unless said."""
    usual = DARKNET_EPS if config.darknet_cfg is not None else PYTORCH_EPS
    return BatchNormSettings(eps=config.bn_eps or usual, momentum=config.bn_momentum)


def find_variant(config: ModelConfig) -> Variant:
    """The row of the table that `model.arch` names.

    Raises:
        UserError: there is none; names the nearest.
    """
    if config.arch not in VARIANTS:
        hint = nearest(config.arch, list(VARIANTS))
        raise UserError(f"unknown model.arch {config.arch!r}{hint} (known: {', '.join(VARIANTS)})")
    return VARIANTS[config.arch]


def _build_backbone(
    config: ModelConfig, variant: Variant
) -> tuple[Any, Callable[[str], ActFactory], BatchNormSettings]:
    spec = config.activation
    norm = build_norm(config)

    def part_act(part: str) -> ActFactory:
        return build_activation(getattr(spec, part) if isinstance(spec, PartActivations) else spec)

    if config.split_half == "first" and not variant.halves:
        raise UserError(
            f"model.split_half: {config.arch} splits no channels; only yolov4-tiny does"
        )
    extra = {"first_half": config.split_half == "first"} if variant.halves else {}
    return variant.backbone(act=part_act("backbone"), norm=norm, **extra), part_act, norm


def _build_darknet(config: ModelConfig, text: str, num_classes: int) -> DarknetNet:
    model = DarknetNet(parse_cfg(text, config.arch), activation, build_norm(config))
    if model.num_classes != num_classes:
        raise UserError(
            f"{config.arch}: its [yolo] sections have classes={model.num_classes}, but the data has "
            f"{num_classes}; change classes= and the filters= before each [yolo]"
        )
    if config.decoder is not None:
        model.decoder = build_decoder(config.decoder, len(model.strides))
    return model


def build_loss(config: Config, model: Detector, num_classes: int) -> YOLOLoss:
    """The loss for the model's anchors and decoder.

    Raises:
        UserError: `loss.balance` for another number of levels.
    """
    loss = config.loss
    levels = len(model.strides)
    balance = loss.balance or BALANCE[:levels]
    if len(balance) != levels:
        raise UserError(f"loss.balance: {len(balance)} values; the model has {levels} levels")
    return YOLOLoss(
        model.anchors,
        model.strides,
        num_classes=num_classes,
        gains={"box": loss.box, "obj": loss.obj, "cls": loss.cls},
        balance=balance,
        anchor_ratio=loss.anchor_ratio,
        label_smoothing=loss.label_smoothing,
        decoder=model.decoder,
    )


def build_hardware(config: Config) -> Hardware:
    """Device, precision and memory format; sets torch's number of threads and, on a CPU, how this
    process deals with freed memory.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    if config.train.deterministic:
        compute_deterministically()  # before the device is used
    hardware = Hardware.choose(
        config.train.device, config.train.precision, channels_last=config.train.channels_last
    )
    if hardware.device.type == "cpu":
        keep_freed_memory()
    return hardware


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
        behind = positions_in_flight(_batch_size(config), about.workers)
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


def build_ground_truth(dataset: str) -> GroundTruth:
    """The validation truths alone, as COCO's evaluation reads them; COCO's layout needs no images.

    Raises:
        UserError: no such data set, or not in its format.
    """
    about, root = describe(dataset)
    path = annotation_file(about, root, "val")
    if path is None:
        index = read_split(about, root, "val")
        return GroundTruth.of(coco_tree(index), index.category_ids.tolist())
    tree = read_json(path)
    if about.names is None:
        return GroundTruth.of(tree)
    ids = {entry["name"]: entry["id"] for entry in tree["categories"]}
    missing = [name for name in about.names if name not in ids]
    if missing:
        raise UserError(f"{path}: no category {missing[0]!r}, which the data YAML's names ask for")
    return GroundTruth.of(tree, [ids[name] for name in about.names])


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


def build_postprocess(config: EvalConfig, conf: float | None = None) -> Postprocess:
    """Thresholds and suppression of `eval.protocol`; `conf` takes the place of the config's."""
    conf = config.conf if conf is None else conf
    if config.protocol == "darknet":
        return Postprocess(conf, select_darknet)
    suppress = functools.partial(
        select, nms_iou=config.nms_iou, max_detections=config.max_detections
    )
    return Postprocess(conf, suppress)


def build_evaluator(
    config: Config, val: ValSet, hardware: Hardware, processes: ProcessGroup | None = None
) -> Evaluator:
    """COCO AP on the validation split, shared between the processes."""
    index = val.reader.index
    if not len(index):
        raise UserError(f"{index.annotations}: it lists no images to evaluate on")
    return Evaluator(
        val_loader(
            val,
            workers=config.data.workers,
            pin_memory=hardware.device.type == "cuda",
            batches=processes.share(val.batches) if processes else None,
        ),
        CocoAP(coco_tree(index), index.category_ids.tolist(), backend=config.eval.backend),
        build_postprocess(config.eval),
        device=hardware.device,
        memory_format=hardware.memory_format,
        autocast=hardware.autocast,
        team=processes if processes and processes.size > 1 else None,
        views=make_tta_views(config.eval.scales, flip=config.eval.flip),
    )


def build_train_loader(
    config: Config, dataset: TrainSet, *, pin_memory: bool, rank: int = 0, processes: int = 1
) -> TrainLoader:
    """Training batches; of several processes, the share of number `rank`."""
    return TrainLoader(
        dataset,
        batch_size=_batch_size(config),
        workers=config.data.workers,
        pin_memory=pin_memory,
        sides=build_train_sizes(config),
        rank=rank,
        processes=processes,
    )


def build_schedule(config: Config, batches: int) -> Schedule:
    """The schedule for epochs of so many batches."""
    train = config.train
    warmup = max(round(train.warmup_epochs * batches), train.warmup_min_steps)
    return Schedule(
        batches=batches,
        epochs=train.epochs,
        lr=train.lr,
        lr_final=train.lr_final,
        momentum=train.momentum,
        warmup_batches=warmup,
        warmup_momentum=train.warmup_momentum,
        warmup_bias_lr=train.warmup_bias_lr,
        accumulate=build_accumulation(config),
        curve=build_curve(train.schedule),
    )


def build_curve(spec: str | ScheduleConfig) -> LRCurve:
    """A registered curve of the learning rate, by its name or by name and parameters."""
    if isinstance(spec, str):
        return curve(spec)
    return curve(spec.name, **(spec.model_extra or {}))


def build_accumulation(config: Config) -> int:
    """Batches that make up the nominal batch."""
    return max(round(config.train.nominal_batch / _batch_size(config)), 1)


def _batch_size(config: Config) -> int:
    """Images a batch.

    Raises:
        UserError: it is still `auto`.
    """
    if config.train.batch_size == "auto":
        raise UserError(
            "train.batch_size: auto becomes a number when tools/train.py starts a run; give one here"
        )
    return config.train.batch_size


def resolve_batch_size(
    config: Config, num_classes: int, hardware: Hardware, processes: ProcessGroup
) -> tuple[Config, list[str]]:
    """The config with a number in the place of `train.batch_size: auto`, and what to say about it.

    On a GPU as many images as fit into the memory that is free, those of real steps at `data.size`, and
    so that the nominal batch is made of batches of the same size; on a CPU the default.

    Raises:
        UserError: not even one image fits.
    """
    train = config.train
    if train.batch_size != "auto":
        return config, []
    if hardware.device.type != "cuda":
        number = TrainConfig().batch_size
        line = f"batch_size: auto is for GPUs; on {hardware.device} it is the default, {number}"
    else:
        one = _with_batch_size(config, 1)
        model = build_model(config.model, num_classes)
        hardware.place(model)
        probe = MemoryProbe(
            model,
            build_loss(config, model, num_classes).to(hardware.device),
            build_optimizer(one, model),
            hardware,
            size=max(build_train_sizes(config), default=config.data.size),
        )
        share = -(-train.nominal_batch // processes.size)
        with probe:
            found = min(processes.gather(largest_that_fits(probe.fits, share)))
        del model, probe
        torch.cuda.empty_cache()
        if not found:
            raise UserError(
                f"the memory of {hardware.device} is too small for one image of {config.data.size} px; "
                f"try a smaller data.size or model.arch"
            )
        number = even_share(train.nominal_batch, found * processes.size)
        line = (
            f"batch_size: auto: {found} images fit into the memory of {hardware.device}; batches of "
            f"{number}, {max(round(train.nominal_batch / number), 1)} of them a step"
        )
    return _with_batch_size(config, number), [line]


def _with_batch_size(config: Config, number: int | str) -> Config:
    train = config.train.model_copy(update={"batch_size": number})
    return config.model_copy(update={"train": train})


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """A registered optimiser; the decay follows the images a step really has, as in the recipe."""
    train = config.train
    images = _batch_size(config) * build_accumulation(config)
    return OPTIMIZERS[train.optimizer](
        model,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay * images / train.nominal_batch,
        factors=train.lr_groups,
    )


def build_dropblock(config: BagConfig, model: Detector) -> list[Callable[[float], None]]:
    """Puts DropBlock into the neck if the bag has it; what is to be told how far training is.

    Raises:
        UserError: a darknet cfg, which has no neck to put it in.
    """
    if not config.dropblock:
        return []
    if isinstance(model, DarknetNet):
        raise UserError("bag.dropblock: a network from a darknet cfg has no neck; set it to 0")
    drop = DropBlock2d(
        block_size=config.dropblock_size, target=config.dropblock, ramp=config.dropblock_ramp
    )
    model.neck.drop = drop
    return [drop.advance]


def build_adversary(
    config: Config, model: Detector, loss: YOLOLoss, hardware: Hardware
) -> SelfAdversary | None:
    """Self-adversarial training, if the bag has it."""
    if not config.bag.sat:
        return None
    return SelfAdversary(
        model,
        loss,
        share=config.bag.sat,
        strength=config.bag.sat_lr,
        seed=config.train.seed,
        autocast=hardware.autocast,
    )


def build_trainer(
    config: Config,
    data: Data,
    evaluator: Evaluator,
    hardware: Hardware,
    start: Callable[[nn.Module], None] | None = None,
    processes: ProcessGroup | None = None,
) -> Trainer:
    """Everything together; seeds torch first, so that the same config starts from the same weights.

    `start` may put other weights into the fresh model. Of several processes each then draws its own
    numbers; its batch is `train.batch_size` images of all of them.
    """
    processes = processes or ProcessGroup()
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, len(data.names))
    if start is not None:
        start(model)
    loss = build_loss(config, model, len(data.names))
    frozen = freeze(model, config.train.freeze)
    ramps = build_dropblock(config.bag, model)
    hardware.place(model)
    loader = build_train_loader(
        config,
        data.train,
        pin_memory=hardware.device.type == "cuda",
        rank=processes.rank,
        processes=processes.size,
    )
    if processes.size > 1:
        synchronise_batch_norms(model, config.train.sync_bn)
        torch.manual_seed(config.train.seed + processes.rank)
    return Trainer(
        model,
        loss.to(hardware.device),
        build_optimizer(config, model),
        ModelEMA(model, decay=config.train.ema_decay, warmup=config.train.ema_warmup),
        schedule=build_schedule(config, len(loader)),
        loader=loader,
        evaluate=evaluator,
        eval_every=config.train.eval_every,
        hardware=hardware,
        clip_norm=config.train.clip_norm,
        skip_limit=config.train.nonfinite_limit if config.train.nonfinite == "skip" else 0,
        compiled=config.train.compile,
        patience=config.train.patience,
        frozen=frozen,
        adversary=build_adversary(config, model, loss, hardware),
        ramps=ramps,
        processes=processes,
        shared_statistics=config.train.sync_bn,
    )


def build_observers(
    config: Config,
    data: Data,
    folder: RunFolder,
    evaluator: Evaluator,
    notes: Sequence[str] = (),
) -> list[Observer]:
    """Who writes to the run folder and to the console; all that has rows or points before the
    checkpoint that knows of them. `notes`: what was said before, for the manifest.
    """
    log, values, about = build_log(config, folder), config_to_dict(config), describe_data(data)
    return [
        Manifest(folder.manifest, config=values, data=about, notes=notes),
        EventLog(folder.events),
        CsvLog(folder.results),
        log,
        TrainBatchPicture(folder.train_batch, data.names, log.show),
        ValBatchPicture(folder.val, lambda: draw_detections(data.val, evaluator.shown), log.show),
        RunPlots(folder.curves, folder.labels, functools.partial(draw_labels, config, data)),
        CheckpointSaver(
            folder,
            config=values,
            names=data.names,
            data=about,
            every=build_checkpoint_interval(config.train.checkpoint_every),
        ),
        Console(),
        build_meter(config),
    ]


def build_meter(config: Config) -> ThroughputMonitor:
    """Who says whether a run waits for its images; with the keys that nothing is set for yet."""
    positions = max(4 * _batch_size(config), LEAST_BUFFER)
    keys = ["data.cache=ram", "data.cache=disk", f"data.tile_buffer={positions}"]
    unused = config.data.cache == "none" and not config.data.tile_buffer
    return ThroughputMonitor(workers=config.data.workers, advice=", ".join(keys) if unused else "")


def build_log(config: Config, folder: RunFolder) -> TrackerLog:
    """Who takes curves and pictures, by `train.log`.

    Raises:
        UserError: one of them is not installed.
    """
    require_trackers(config.train.log)
    values = config_to_dict(config)
    openers = [functools.partial(TRACKERS[name], folder.path, values) for name in config.train.log]
    return TrackerLog(openers, norms_every=config.train.norms_every)


def describe_data(data: Data) -> dict[str, Any]:
    """What is written down of a run's data: counts and a digest of both splits, and what was found."""
    return {
        "train": fingerprint(data.train.reader.index),
        "val": fingerprint(data.val.reader.index),
        "findings": dict(Counter(finding.kind for finding in data.findings)),
    }


def draw_detections(val: ValSet, shown: Sequence[ImageDetections]) -> np.ndarray:
    """Validation images with their ground truth, and beside it the detections of `Evaluator.shown`."""
    samples = val.reader.read_ids(each.image_id for each in shown)
    return draw_ground_truth_and_detections(samples, shown, val.reader.index.names)


def draw_labels(config: Config, data: Data, path: Path) -> None:
    """The training labels, with the model's anchors among them; needs matplotlib."""
    anchors = np.array(flat(build_anchors(config.model, len(data.names))))
    plot_labels(path, data.train.reader.index, size=config.data.size, anchors=anchors)


def build_checkpoint_interval(setting: int | str) -> CheckpointInterval:
    """Steps, or a duration such as "10m"."""
    if isinstance(setting, int):
        return CheckpointInterval(steps=setting)
    return CheckpointInterval(seconds=seconds(setting))
