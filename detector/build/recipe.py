"""The recipe that fits a run: what `recipe: auto` makes of the number of images and epochs.

The published recipe is COCO's: 118,287 images x 300 epochs are 554,000 optimizer steps of 64 images. A
run of 300 images x 40 epochs has 190 such steps: fewer than the warm-up, and fewer than the EMA needs
to forget the initial weights. Each rule gives the published value if a run is long enough for it, and
otherwise one that fits the run.
"""

import math
from dataclasses import dataclass
from typing import Any

from detector.config import ADAMW, RECIPE_KEYS, Config, LossConfig, TrainConfig, replace_values

PUBLISHED = TrainConfig()
COCO_OBJECTS = 7.0  # per image; train2017 has 7.3
MIN_OBJECTS = 0.5
# images in all epochs; from here on the published recipe
LONG_RUN = 20_000 * PUBLISHED.nominal_batch
NOMINAL_BATCHES = (8, PUBLISHED.nominal_batch)  # smallest and largest
STEPS = 2_000  # as many steps as a short run should have at least
WARMUP_SHARE = 0.1  # of the run's batches, at most
EMA_SHARE = 0.125  # of the run's steps that the EMA averages over, at most
MOSAIC_OFF_SHARE = 0.15  # of a short run's epochs that end without mosaic
EVAL_SHARE = 0.1  # of the training time that evaluations may take, about
EVAL_COST = 1 / 3  # of an image in the evaluation: the forward pass of training alone
LR_FINAL = 0.05  # of a short run
SHORT_RUN_LR = 2.0  # times the published learning rate
CLS_FACTOR = 8.0  # of a short run
BOX_FACTOR = 2.0  # of a short run with COCO's number of objects per image, times the published gain
MANY_OBJECTS = (
    COCO_OBJECTS / 2
)  # per image, from which on the objectness target of a short run is IoU
FEW_STEPS = 500  # fewer steps from initial weights learn little, whatever the recipe
PRETRAINED_LR = 2.0  # times the learning rate from scratch, at most steps as long as published
FREEZE_SHARE = 0.125  # of a short run's epochs, in which a trained backbone is frozen


@dataclass(frozen=True, slots=True)
class RunSize:
    """What the rules know of a run.

    Attributes:
        images: number of training images in an epoch.
        val_images: number of validation images.
        epochs: number of epochs.
        objects: number of objects per training image, on average; crowds do not count.
        pretrained: whether the run starts from trained weights.
        has_backbone: whether the network has a part of this name; one of a darknet cfg is a list.
    """

    images: int
    val_images: int
    epochs: int
    objects: float = COCO_OBJECTS
    pretrained: bool = False
    has_backbone: bool = True

    @property
    def total(self) -> int:
        """Training images in all epochs."""
        return self.images * self.epochs

    @property
    def is_short(self) -> bool:
        """Whether the published recipe is too long for the run."""
        return self.total < LONG_RUN


def choose_nominal_batch(size: RunSize) -> int:
    """Images per optimizer step: a power of two that leaves `STEPS` steps, from 8 to the published 64."""
    smallest, largest = NOMINAL_BATCHES
    power = 2 ** math.floor(math.log2(max(size.total / STEPS, 1)))
    return min(max(power, smallest), largest)


def choose_lr(size: RunSize, nominal_batch: int) -> float:
    """SGD's learning rate: of a short run twice the published one x 64 / nominal batch, or less.

    Gradients are those of the mean losses times the images of a step, so with 64 / nominal batch a step
    is as long as a published one. A mean over few objects is noisy: below the 7 objects of an image of
    COCO the rate is proportional to their number. A run from trained weights has twice that rate, but its
    steps are no longer than the published ones, which trained the published weights.
    """
    if not size.is_short:
        return PUBLISHED.lr
    lr = PUBLISHED.lr * PUBLISHED.nominal_batch / nominal_batch
    factor = SHORT_RUN_LR * min(max(size.objects, MIN_OBJECTS) / COCO_OBJECTS, 1.0)
    if size.pretrained:
        factor = min(PRETRAINED_LR * factor, 1.0)
    return float(f"{lr * factor:.3g}")


def choose_box_gain(size: RunSize) -> float:
    """The published gain; of a short run up to twice as much, in proportion to the objects per image.

    As with the learning rate: the more objects, the less noisy the gradient of their boxes.
    """
    published = LossConfig().box
    if not size.is_short:
        return published
    return float(
        f"{published * min(max(BOX_FACTOR * size.objects / COCO_OBJECTS, 1), BOX_FACTOR):.3g}"
    )


def choose_warmup(size: RunSize, batch_size: int) -> tuple[float, int]:
    """`warmup_epochs` and `warmup_min_steps`: the published ones, but at most a tenth of the run."""
    batches = math.ceil(size.images / batch_size)
    published = max(round(PUBLISHED.warmup_epochs * batches), PUBLISHED.warmup_min_steps)
    limit = WARMUP_SHARE * size.epochs * batches
    if published <= limit:
        return PUBLISHED.warmup_epochs, PUBLISHED.warmup_min_steps
    return round(WARMUP_SHARE * size.epochs, 3), 0


def choose_ema(size: RunSize, nominal_batch: int) -> tuple[float, float]:
    """`ema_decay` and `ema_warmup`: averages over an eighth of the run's steps, at most the published."""
    published = 1 / (1 - PUBLISHED.ema_decay)  # steps
    steps = EMA_SHARE * size.total / nominal_batch
    if steps >= published:
        return PUBLISHED.ema_decay, PUBLISHED.ema_warmup
    steps = max(steps, 1.0)
    return round(1 - 1 / steps, 8), min(PUBLISHED.ema_warmup, max(round(steps / 2, 1), 1.0))


def choose_mosaic_off_epochs(size: RunSize) -> int:
    """The last epochs of a short run see whole images, as the evaluation does; 0 as published else."""
    return round(MOSAIC_OFF_SHARE * size.epochs) if size.is_short else 0


def choose_freeze(size: RunSize, given: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """`freeze`, `freeze_epochs`: a short run from trained weights first adapts what reads the backbone.

    Its head is new, and its first gradients would change a backbone that is already good for something.
    """
    freeze, epochs = given.get("train.freeze"), given.get("train.freeze_epochs")
    if freeze is not None:
        return freeze, epochs or 0
    if epochs is None:
        short = size.pretrained and size.is_short and size.has_backbone
        epochs = round(FREEZE_SHARE * size.epochs) if short else 0
    return ("backbone",) * bool(epochs), epochs


def choose_eval_every(size: RunSize) -> int:
    """Epochs between evaluations, so that these take a tenth of the time; at least ten in a run."""
    every = round(EVAL_COST * size.val_images / size.images / EVAL_SHARE)
    return max(min(every, size.epochs // 10), 1)


def derive_recipe(size: RunSize, given: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """The value of every key in `RECIPE_KEYS`.

    Args:
        size: of the run.
        given: the values that the user has set, by dotted key: they stay, and others follow from them.
        batch_size: of the config; shrinks to the nominal batch unless it is `given`.
    """
    values: dict[str, Any] = {"train.nominal_batch": choose_nominal_batch(size)}
    values |= given
    nominal = values["train.nominal_batch"]
    values.setdefault("train.batch_size", min(batch_size, nominal))
    values.setdefault("train.optimizer", PUBLISHED.optimizer)
    rates: dict[str, Any] = {key: getattr(PUBLISHED, key) for key in ADAMW}
    if values["train.optimizer"] == "adamw":
        rates = dict(ADAMW)
    else:
        rates["lr"] = choose_lr(size, nominal)
    if (
        size.is_short and values["train.optimizer"] != "adamw"
    ):  # no higher than the lr, given or not
        rates["warmup_bias_lr"] = given.get("train.lr", rates["lr"])
    for key, value in rates.items():
        values.setdefault(f"train.{key}", value)
    values.setdefault("train.lr_final", LR_FINAL if size.is_short else PUBLISHED.lr_final)
    batch = values["train.batch_size"]
    epochs, steps = choose_warmup(size, batch if isinstance(batch, int) else nominal)
    if given.keys().isdisjoint({"train.warmup_epochs", "train.warmup_min_steps"}):
        values |= {"train.warmup_epochs": epochs, "train.warmup_min_steps": steps}
    decay, warmup = choose_ema(size, nominal)
    if given.keys().isdisjoint({"train.ema_decay", "train.ema_warmup"}):
        values |= {"train.ema_decay": decay, "train.ema_warmup": warmup}
    values |= zip(("train.freeze", "train.freeze_epochs"), choose_freeze(size, given), strict=True)
    values.setdefault("train.eval_every", choose_eval_every(size))
    values.setdefault("bag.mosaic_off_epochs", choose_mosaic_off_epochs(size))
    loss = LossConfig()
    values.setdefault("loss.cls_factor", CLS_FACTOR if size.is_short else loss.cls_factor)
    values.setdefault("loss.box", choose_box_gain(size))
    many = size.is_short and size.objects >= MANY_OBJECTS
    values.setdefault("loss.obj_target", "iou" if many else loss.obj_target)
    return values


def resolve_recipe(
    config: Config,
    images: int,
    val_images: int,
    *,
    objects: float = COCO_OBJECTS,
    pretrained: bool = False,
) -> tuple[Config, list[str]]:
    """The config with the recipe that fits the run, and a line that says what it is.

    Args:
        config: as it was loaded: it knows which keys the user has set.
        images: number of training images in an epoch.
        val_images: number of validation images.
        objects: number of objects per training image, on average.
        pretrained: whether the run starts from trained weights.
    """
    if config.recipe != "auto":
        return config, []
    given = find_given_values(config)
    has_backbone = config.model.darknet_cfg is None
    size = RunSize(images, val_images, config.train.epochs, objects, pretrained, has_backbone)
    batch_size = config.train.batch_size
    number = batch_size if isinstance(batch_size, int) else TrainConfig().nominal_batch
    values = derive_recipe(size, given, number)
    resolved = replace_values(config, values)
    return resolved, [describe_recipe(resolved, size), *_warn_of_few_steps(resolved, size)]


def find_given_values(config: Config) -> dict[str, Any]:
    """The values of `RECIPE_KEYS` that a YAML or the command line sets, by dotted key."""
    sections = {key: key.split(".") for key in RECIPE_KEYS}
    return {
        key: getattr(getattr(config, section), name)
        for key, (section, name) in sections.items()
        if name in getattr(config, section).model_fields_set
    }


def describe_recipe(config: Config, size: RunSize) -> str:
    """One line: size of the run, steps, optimizer, warm-up, EMA, mosaic and evaluations."""
    train = config.train
    steps = math.ceil(size.total / train.nominal_batch)
    batch = train.batch_size if isinstance(train.batch_size, int) else train.nominal_batch
    batches = math.ceil(size.images / batch)
    warmup = max(round(train.warmup_epochs * batches), train.warmup_min_steps)
    off = config.bag.mosaic_off_epochs
    parts = [
        f"recipe: {size.images} images x {size.epochs} epochs = {steps} steps of {train.nominal_batch}",
        f"{train.optimizer}, lr {train.lr:g}" + " (from trained weights)" * size.pretrained,
        _describe_freeze(train),
        f"warm-up {warmup} batches",
        f"EMA over {round(1 / (1 - train.ema_decay))} steps",
        _describe_loss(config),
        f"mosaic off in the last {_count_epochs(off)}" if off else "mosaic until the end",
        f"evaluation every {_count_epochs(train.eval_every)}",
    ]
    return "; ".join(filter(None, parts))


def _describe_freeze(train: TrainConfig) -> str:
    """What is frozen at first; empty if nothing is, or for the whole run."""
    if not (train.freeze and train.freeze_epochs):
        return ""
    return f"{', '.join(train.freeze)} frozen in the first {_count_epochs(train.freeze_epochs)}"


def _describe_loss(config: Config) -> str:
    """How the loss differs from the published one; empty if it does not."""
    loss, published = config.loss, LossConfig()
    parts = [
        f"class gain x{loss.cls_factor:g}" if loss.cls_factor != 1 else "",
        f"box gain {loss.box:g}" if loss.box != published.box else "",
        f"objectness target {loss.obj_target}" if loss.obj_target != published.obj_target else "",
    ]
    return ", ".join(filter(None, parts))


def _warn_of_few_steps(config: Config, size: RunSize) -> list[str]:
    """A line for a run from initial weights that is too short to learn much, with a number of epochs."""
    steps = size.total / config.train.nominal_batch
    if size.pretrained or steps >= FEW_STEPS:
        return []
    epochs = math.ceil(FEW_STEPS * config.train.nominal_batch / size.images)
    return [
        "few steps: a run from initial weights needs hundreds to learn its classes and boxes; "
        f"train.epochs={epochs} makes {FEW_STEPS}, or start from trained weights with --weights"
    ]


def _count_epochs(number: int) -> str:
    return "epoch" if number == 1 else f"{number} epochs"
