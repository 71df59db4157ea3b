"""The one file where configuration meets constructors: one short function a noun."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detector.config import (
    STRIDES,
    ActivationConfig,
    BagConfig,
    Config,
    ModelConfig,
    PartActivations,
    config_from_dict,
    config_to_dict,
)
from detector.data import (
    Bag,
    Item,
    Reader,
    TrainLoader,
    TrainSet,
    ValSet,
    collate,
    describe,
    letterbox,
    read_split,
    unlabelled,
    val_loader,
)
from detector.engine import (
    BatchPicture,
    Console,
    CsvLog,
    Hardware,
    Observer,
    RunFolder,
    SaveCheckpoints,
    Schedule,
    Trainer,
    WeightAverage,
    load_checkpoint,
    load_weights,
    sgd,
)
from detector.errors import UserError
from detector.evaluation import CocoAP, Evaluator, predict
from detector.losses import YOLOLoss
from detector.models import VARIANTS, YOLO, CSPDarknet, CSPPANet, YOLOHead
from detector.nn import ActFactory, BatchNormSettings, activation
from detector.postprocess import postprocess
from detector.registry import nearest
from detector.structures import Detections


@dataclass(frozen=True, slots=True)
class Data:
    """The two splits of a data set.

    Attributes:
        names: the class names, by label.
        complaints: what the readers left out, a line each.
    """

    train: TrainSet
    val: ValSet
    names: tuple[str, ...]
    complaints: list[str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A trained model and what it was trained as."""

    model: YOLO
    config: Config
    names: tuple[str, ...]


def build_activation(spec: str | ActivationConfig) -> ActFactory:
    """A registered activation, by its name or by name and parameters."""
    if isinstance(spec, str):
        return activation(spec)
    return activation(spec.name, **(spec.model_extra or {}))


def build_model(config: ModelConfig, num_classes: int) -> YOLO:
    """The network, freshly initialised from torch's generator."""
    if config.arch not in VARIANTS:
        hint = nearest(config.arch, list(VARIANTS))
        raise UserError(f"unknown model.arch {config.arch!r}{hint} (known: {', '.join(VARIANTS)})")
    variant = VARIANTS[config.arch]
    spec = config.activation
    parts = spec if isinstance(spec, PartActivations) else None
    backbone_act, neck_act, head_act = (
        build_activation(getattr(parts, part) if parts else spec)  # pyright: ignore
        for part in ("backbone", "neck", "head")
    )
    norm = BatchNormSettings(eps=config.bn_eps, momentum=config.bn_momentum)
    backbone = CSPDarknet(
        stem=variant.stem,
        channels=variant.channels,
        stage1_hidden=variant.stage1_hidden,
        depths=variant.depths,
        act=backbone_act,
        norm=norm,
    )
    neck = CSPPANet(
        backbone.out_channels,
        width=variant.neck,
        depth=variant.neck_depth,
        spp_before=variant.spp_before,
        spp_after=variant.spp_after,
        act=neck_act,
        norm=norm,
    )
    head = YOLOHead(
        neck.out_channels,
        num_classes=num_classes,
        num_anchors=len(config.anchors[0]),
        strides=STRIDES,
        act=head_act,
        norm=norm,
    )
    return YOLO(backbone, neck, head, anchors=config.anchors, strides=STRIDES)


def build_loss(config: Config, model: YOLO, num_classes: int) -> YOLOLoss:
    """The loss for the model's anchors."""
    loss = config.loss
    return YOLOLoss(
        model.anchors,
        model.strides,
        num_classes=num_classes,
        gains={"box": loss.box, "obj": loss.obj, "cls": loss.cls},
        balance=loss.balance,
        anchor_ratio=loss.anchor_ratio,
        label_smoothing=loss.label_smoothing,
    )


def build_hardware(config: Config) -> Hardware:
    """Device, precision and memory format; sets torch's number of threads."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    return Hardware.choose(
        config.train.device, config.train.precision, channels_last=config.train.channels_last
    )


def build_bag(config: BagConfig, *, mirrors: bool) -> Bag:
    """The augmentations; flips are off where a mirrored object is another one."""
    strengths: dict[str, Any] = config.model_dump(exclude={"mosaic_off_epochs"})
    if not mirrors:
        strengths |= {"flip_lr": 0.0, "flip_ud": 0.0}
    return Bag(**strengths)


def build_data(config: Config) -> Data:
    """Both splits of the config's data set.

    Raises:
        UserError: nothing there, not COCO's format, or splits with different classes.
    """
    about, root = describe(config.data.dataset)
    train, val = read_split(about, root, "train"), read_split(about, root, "val")
    if train.names != val.names:
        raise UserError(
            f"{val.annotations}: its {len(val.names)} categories are not the "
            f"{len(train.names)} of {train.annotations.name}"
        )
    if not len(train):
        raise UserError(f"{train.annotations}: it lists no images to train on")
    return Data(
        train=TrainSet(
            Reader(train),
            build_bag(config.bag, mirrors=about.mirrors),
            size=config.data.size,
            seed=config.train.seed,
            mosaic_until=config.train.epochs - config.bag.mosaic_off_epochs,
        ),
        val=ValSet(Reader(val), size=config.data.size),
        names=train.names,
        complaints=[*train.complaints, *val.complaints],
    )


def build_val(config: Config) -> ValSet:
    """The validation split alone."""
    about, root = describe(config.data.dataset)
    return ValSet(Reader(read_split(about, root, "val")), size=config.data.size)


def build_evaluator(config: Config, val: ValSet, hardware: Hardware) -> Evaluator:
    """COCO AP on the validation split."""
    index = val.reader.index
    if not len(index):
        raise UserError(f"{index.annotations}: it lists no images to evaluate on")
    settings = config.eval
    return Evaluator(
        val_loader(
            val,
            batch_size=settings.batch_size,
            workers=config.data.workers,
            pin_memory=hardware.device.type == "cuda",
        ),
        CocoAP(index.annotations, index.category_ids.tolist()),
        functools.partial(
            postprocess,
            conf=settings.conf,
            nms_iou=settings.nms_iou,
            max_detections=settings.max_detections,
        ),
        device=hardware.device,
        memory_format=hardware.memory_format,
        autocast=hardware.autocast,
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
    )


def build_accumulation(config: Config) -> int:
    """Batches that make up the nominal batch."""
    return max(round(config.train.nominal_batch / config.train.batch_size), 1)


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.SGD:
    """SGD; the decay follows the images a step really has, as in the recipe."""
    train = config.train
    images = train.batch_size * build_accumulation(config)
    return sgd(
        model,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay * images / train.nominal_batch,
    )


def build_trainer(config: Config, data: Data, evaluator: Evaluator, hardware: Hardware) -> Trainer:
    """Everything together; seeds torch first, so that the same config starts from the same weights."""
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, len(data.names))
    loss = build_loss(config, model, len(data.names))
    hardware.place(model)
    loader = TrainLoader(
        data.train,
        batch_size=config.train.batch_size,
        workers=config.data.workers,
        pin_memory=hardware.device.type == "cuda",
    )
    return Trainer(
        model,
        loss.to(hardware.device),
        build_optimizer(config, model),
        WeightAverage(model, decay=config.train.ema_decay, warmup=config.train.ema_warmup),
        schedule=build_schedule(config, len(loader)),
        loader=loader,
        evaluate=evaluator,
        eval_every=config.train.eval_every,
        hardware=hardware,
    )


def build_observers(config: Config, data: Data, folder: RunFolder) -> list[Observer]:
    """Who writes to the run folder and to the console; checkpoints first, for what if one fails."""
    return [
        SaveCheckpoints(folder, config=config_to_dict(config), names=data.names),
        CsvLog(folder.results),
        BatchPicture(folder.path / "train_batch.jpg", data.names),
        Console(),
    ]


def load_model(path: Path, overrides: Sequence[str] = (), *, dataset: str | None = None) -> Loaded:
    """The averaged weights of a checkpoint, in the model its config describes.

    Args:
        path: a best.pt or last.pt.
        overrides: `key=value` words for the sections that do not shape the model.
        dataset: a data YAML in the place of the one trained on.

    Raises:
        UserError: not a checkpoint, or its weights do not fit its config.
    """
    for word in overrides:
        if word.split(".")[0] not in ("data", "eval", "train"):
            raise UserError(
                f"{word}: the checkpoint fixes this; only data.*, eval.*, train.* can change"
            )
    content = load_checkpoint(path)
    config = config_from_dict(content["config"], str(path), overrides, data=dataset)
    names = tuple(content["names"])
    model = build_model(config.model, len(names))
    load_weights(model, content["weights"], str(path))
    return Loaded(model, config, names)


def build_detector(
    loaded: Loaded, hardware: Hardware, *, conf: float
) -> Callable[[np.ndarray], Detections]:
    """A function from an image, uint8 [H, W, 3] RGB, to what it shows, in the image's pixels."""
    model = hardware.place(loaded.model)
    settings = loaded.config.eval
    find = functools.partial(
        postprocess, conf=conf, nms_iou=settings.nms_iou, max_detections=settings.max_detections
    )

    def detect(image: np.ndarray) -> Detections:
        sample, placement = letterbox(unlabelled(image), loaded.config.data.size)
        batch = collate([Item(sample, placement)])
        (found,) = predict(
            model,
            [batch],
            find,
            device=hardware.device,
            memory_format=hardware.memory_format,
            autocast=hardware.autocast,
        )
        return found[0].detections

    return detect
