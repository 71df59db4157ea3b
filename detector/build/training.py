"""Loss, optimizer, schedule and the trainer that joins all parts."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from detector.build.data import Data, build_train_loader, require_batch_size
from detector.build.model import Detector, build_dropblock, build_network, is_classifier
from detector.config import Config, ScheduleConfig, TrainConfig
from detector.device import keep_freed_memory
from detector.engine import (
    OPTIMIZERS,
    Frozen,
    Hardware,
    LRCurve,
    ModelEMA,
    ProcessGroup,
    Schedule,
    SelfAdversary,
    Trainer,
    TrainerOptions,
    compute_deterministically,
    find_capture_obstacle,
    freeze,
    make_lr_curve,
)
from detector.errors import UserError
from detector.evaluation import Evaluator, TopKEvaluator
from detector.losses import (
    ASSIGNERS,
    BALANCE,
    BOX_LOSSES,
    CLASS_LOSSES,
    CLASSIFIER_LOSSES,
    ClassificationLoss,
    LossTerms,
    YOLOLoss,
)
from detector.models import Classifier
from detector.nn import DropBlock2d, synchronise_batch_norms, use_checkpointing


def build_loss(config: Config, model: Detector, num_classes: int) -> YOLOLoss:
    """The loss for the model's anchors and decoder.

    Raises:
        UserError: `loss.balance` for another number of levels, `loss.class_weights` for another number of
            classes.
    """
    loss = config.loss
    levels = len(model.strides)
    balance = loss.balance or BALANCE[:levels]
    if len(balance) != levels:
        raise UserError(f"loss.balance: {len(balance)} values; the model has {levels} levels")
    assert not isinstance(loss.class_weights, str), "resolve_class_weights comes first"
    if loss.class_weights is not None and len(loss.class_weights) != num_classes:
        raise UserError(
            f"loss.class_weights: {len(loss.class_weights)} values; there are {num_classes} classes"
        )
    return YOLOLoss(
        model.anchors,
        model.strides,
        num_classes=num_classes,
        gains={"box": loss.box, "obj": loss.obj, "cls": loss.cls * loss.cls_factor},
        balance=balance,
        anchor_ratio=loss.anchor_ratio,
        terms=LossTerms(
            assigner=ASSIGNERS[loss.assigner],
            box=BOX_LOSSES[loss.box_loss],
            objectness=loss.obj_target,
            classes=CLASS_LOSSES[loss.cls_loss],
            label_smoothing=loss.label_smoothing,
            class_weights=loss.class_weights,
        ),
        decoder=model.decoder,
    )


def build_training_network(
    config: Config, num_classes: int, drop: DropBlock2d | None = None
) -> Detector | Classifier:
    """As `build_network`, with activation checkpointing if the config has it."""
    model = build_network(config.model, num_classes, drop)
    if config.train.activation_checkpointing:
        use_checkpointing(model)
    return model


def build_criterion(
    config: Config, model: Detector | Classifier, num_classes: int
) -> YOLOLoss | ClassificationLoss:
    """The loss of a detector or of a classifier.

    Raises:
        UserError: as `build_loss`; `loss.class_weights` for a classifier.
    """
    if not isinstance(model, Classifier):
        return build_loss(config, model, num_classes)
    if config.loss.class_weights is not None:
        raise UserError(
            "loss.class_weights: a classifier's loss has none; remove the key, or balance the classes by "
            "data.sampling=class_balanced"
        )
    return ClassificationLoss(
        num_classes,
        label_smoothing=config.loss.label_smoothing,
        kind=CLASSIFIER_LOSSES[config.loss.classifier or model.loss],
    )


def build_hardware(config: Config) -> Hardware:
    """Chooses device, precision and memory format.

    Also sets torch's number of threads and, on a CPU, lets this process keep freed memory.
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


def build_schedule(config: Config, batches: int) -> Schedule:
    """The schedule of learning rate and momentum for epochs of `batches` batches."""
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
    """A registered curve of the learning rate, from its name or from name and parameters."""
    if isinstance(spec, str):
        return make_lr_curve(spec)
    return make_lr_curve(spec.name, **(spec.model_extra or {}))


def build_accumulation(config: Config) -> int:
    """Micro-batches per optimizer step, so that a step has about `train.nominal_batch` images."""
    return max(round(config.train.nominal_batch / require_batch_size(config)), 1)


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """A registered optimizer; weight decay is scaled by the images that a step has, as in the recipe."""
    train = config.train
    images = require_batch_size(config) * build_accumulation(config)
    return OPTIMIZERS[train.optimizer](
        model,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay * images / train.nominal_batch,
        factors=train.lr_groups,
    )


def build_adversary(
    config: Config,
    model: Detector | Classifier,
    loss: YOLOLoss | ClassificationLoss,
    hardware: Hardware,
) -> SelfAdversary | None:
    """Self-adversarial training; None if the bag has it off.

    Raises:
        UserError: for a classifier.
    """
    if not config.bag.sat:
        return None
    if isinstance(model, Classifier) or isinstance(loss, ClassificationLoss):
        raise UserError("bag.sat: self-adversarial training is for detectors; set it to 0")
    return SelfAdversary(
        model,
        loss,
        share=config.bag.sat,
        strength=config.bag.sat_lr,
        seed=config.train.seed,
        autocast=hardware.autocast,
    )


def choose_capture(
    config: Config, hardware: Hardware, process_group: ProcessGroup
) -> tuple[bool, str]:
    """Whether the passes run as CUDA graphs, and a line about it if that is not what one expects."""
    wanted = config.train.capture
    obstacle = find_capture_obstacle(
        hardware,
        world_size=process_group.world_size,
        compiled=config.train.compile,
        changing=config.bag.dropblock > 0,
        checkpointed=config.train.activation_checkpointing,
    )
    if is_classifier(config.model):
        obstacle = (
            obstacle or "the graphs are made for networks that return maps, not for classifiers"
        )
    if obstacle is None or wanted is False:
        return bool(wanted), ""
    asked = wanted is True or hardware.device.type == "cuda"
    return False, f"train.capture: off: {obstacle}" if asked else ""


def build_trainer_options(
    config: TrainConfig,
    *,
    metrics: Sequence[str],
    capture: bool,
    frozen: Frozen,
    adversary: SelfAdversary | None,
    ramps: Sequence[Callable[[float], None]],
) -> TrainerOptions:
    """The options of the training loop; the rest as in `TrainerOptions`."""
    return TrainerOptions(
        eval_every=config.eval_every,
        metrics=metrics,
        patience=config.patience,
        clip_norm=config.clip_norm,
        skip_limit=config.nonfinite_limit if config.nonfinite == "skip" else 0,
        compile=config.compile,
        capture=capture,
        sync_batch_norms=config.sync_bn,
        frozen=frozen,
        adversary=adversary,
        ramps=ramps,
    )


def build_optimizer_and_freeze(
    config: Config, model: nn.Module
) -> tuple[torch.optim.Optimizer, Frozen]:
    """The optimizer of all that is ever trained, and what is frozen at first or in the whole run."""
    patterns, epochs = config.train.freeze, config.train.freeze_epochs
    if epochs:
        optimizer = build_optimizer(config, model)
        return optimizer, freeze(model, patterns, epochs=epochs)
    frozen = freeze(model, patterns)
    return build_optimizer(config, model), frozen


def build_trainer(
    config: Config,
    data: Data,
    evaluator: Evaluator | TopKEvaluator,
    hardware: Hardware,
    start: Callable[[nn.Module], None] | None = None,
    process_group: ProcessGroup | None = None,
) -> Trainer:
    """Model, loss, optimizer, EMA, schedule and loader, joined in a trainer.

    Seeds torch first, so the same config starts from the same weights; then, if there are several ranks,
    each draws random numbers of its own. A batch of `train.batch_size` images is shared by all ranks.

    Args:
        config: of the run, without `auto`.
        data: of the run.
        evaluator: of the validation split.
        hardware: where to train.
        start: may load other weights into the fresh model.
        process_group: the ranks that train together.
    """
    process_group = process_group or ProcessGroup()
    torch.manual_seed(config.train.seed)
    dropblock = build_dropblock(config.bag)
    model = build_training_network(config, len(data.names), dropblock)
    if start is not None:
        start(model)
    loss = build_criterion(config, model, len(data.names))
    hardware.place(model)
    optimizer, frozen = build_optimizer_and_freeze(config, model)
    loader = build_train_loader(
        config,
        data.train,
        pin_memory=hardware.device.type == "cuda",
        rank=process_group.rank,
        world_size=process_group.world_size,
    )
    if process_group.world_size > 1:
        synchronise_batch_norms(model, config.train.sync_bn)
        torch.manual_seed(config.train.seed + process_group.rank)
    return Trainer(
        model,
        loss.to(hardware.device),
        optimizer,
        ModelEMA(model, decay=config.train.ema_decay, warmup=config.train.ema_warmup),
        schedule=build_schedule(config, len(loader)),
        loader=loader,
        evaluate=evaluator,
        hardware=hardware,
        process_group=process_group,
        options=build_trainer_options(
            config.train,
            metrics=("top1", "top5") if is_classifier(config.model) else ("AP", "AP50"),
            capture=choose_capture(config, hardware, process_group)[0],
            frozen=frozen,
            adversary=build_adversary(config, model, loss, hardware),
            ramps=[] if dropblock is None else [dropblock.advance],
        ),
    )
