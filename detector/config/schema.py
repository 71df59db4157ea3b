"""The typed, frozen configuration: every key a YAML may hold, its type, its range and its default.

Each default has its one home here. Values that the published recipe fixes cite it; see
`configs/` for the variants. The keys of the bag are in `bag_schema.py`; reading and error messages in
`parse.py`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    model_validator,
)

from detector.config.bag_schema import BagConfig
from detector.config.ranges import (
    LARGEST,
    Anchor,
    Count,
    CountOrAuto,
    CountOrZero,
    Duration,
    FlagOrAuto,
    Fraction,
    ImageSize,
    NonNegative,
    Positive,
)
from detector.config.section import Section
from detector.config.yaml_tree import AsWritten

MIN_TILE_BUFFER = 16  # images in a tile buffer, at least; a mosaic has up to nine
LARGEST_STRIDE = 32  # of every network of this family


class ActivationConfig(BaseModel):
    """An activation with parameters, e.g. `{name: leaky_relu, negative_slope: 0.2}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


def _shape_of_activation(value: Any) -> str:
    """Which form of an activation a value has: a mistake is then reported for that form only."""
    if isinstance(value, ActivationConfig) or (isinstance(value, dict) and "name" in value):
        return "<parameters>"
    return "<parts>" if isinstance(value, dict | PartActivations) else "<name>"


ActivationSpec = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[ActivationConfig, Tag("<parameters>")],
    Discriminator(_shape_of_activation),
]


def _shape_of_list(value: Any) -> str:
    """Which form a word or a list has: a mistake is then reported for that form only."""
    return "<word>" if isinstance(value, str) else "<list>"


class PartActivations(Section):
    """One activation for each part of the network."""

    backbone: ActivationSpec
    neck: ActivationSpec
    head: ActivationSpec


class DecoderConfig(Section):
    """How raw values become boxes; it belongs to the weights. See `detector.decode.Decoder`."""

    size: Literal["sigmoid", "exp"] = "sigmoid"  # (2s)^2 or exp(raw), times the anchor
    # one for all levels, or one per level
    scale_x_y: tuple[Annotated[float, Field(ge=1, le=LARGEST)], ...] = (2.0,)


class ModelConfig(Section):
    """The network. `arch` names a row of the table in `detector/models/variants.py`."""

    arch: str = "yolov4-pacsp"
    darknet_cfg: str | None = None  # text of a darknet .cfg, which then replaces `arch`
    activation: Annotated[
        Annotated[str, Tag("<name>")]
        | Annotated[ActivationConfig, Tag("<parameters>")]
        | Annotated[PartActivations, Tag("<parts>")],
        Discriminator(_shape_of_activation),
    ] = "mish"
    # (width, height) in pixels, one list per level, finest first. published: those of the network; auto:
    # clustered from the training boxes at data.size when a run starts. None: with recipe auto, published
    # if they fit the boxes, else clustered; with recipe published, published. The run records numbers
    anchors: Annotated[
        Annotated[Literal["auto", "published"], Tag("<word>")]
        | Annotated[tuple[tuple[Anchor, ...], ...] | None, Tag("<list>")],
        Discriminator(_shape_of_list),
    ] = None
    decoder: DecoderConfig | None = None  # None: (2s)^2, or as in the darknet cfg
    # which half of the channels yolov4-tiny's stages split off; darknet takes the second
    split_half: Literal["second", "first"] = "second"
    # reduce the resolution by 8 instead of 32: the classifiers of torchvision and timm on 32-pixel images
    small_images: bool = False
    # of a detector: a row of the same table with maps at strides 8, 16, 32, such as csp_resnet50, in the
    # place of the backbone of `arch`
    backbone: str | None = None
    # weights of the residual sums of the backbone: none, or learned, one for each summand (per_layer) or
    # channel (per_channel); see detector/nn/weighted_sum.py
    miwrc: Literal["none", "per_layer", "per_channel"] = "none"
    depth: Count | None = None  # hidden layers of the network mlp; None: 15
    # how weights are drawn: default, torch's own for each layer; glorot_uniform, glorot_normal,
    # lecun_normal, he_uniform, he_normal; see detector/nn/initialise.py
    init: str = "default"
    # None: 1e-4 as published, 1e-5 for darknet's cfgs and weights; torchvision's and timm's networks keep
    # their own
    bn_eps: Positive | None = None
    bn_momentum: Fraction = 0.03

    @model_validator(mode="after")
    def _check_anchors(self) -> Self:
        anchors = [[()]] if self.anchors in (None, "auto", "published") else self.anchors
        counts = {len(level) for level in anchors}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                "anchors: give one list per level of the network, finest first, each with the same "
                "number of [width, height] pairs"
            )
        return self


class DataConfig(Section):
    """The data set, the size of its images, and how they are read."""

    dataset: Annotated[str, AsWritten()] = "coco.yaml"  # a path, or a file name in data/
    # names of the classes to train on, in this order; None: all of the data set
    classes: Annotated[Annotated[tuple[str, ...], Field(min_length=1)] | None, AsWritten()] = None
    size: ImageSize = 640  # width and height of training and validation images, pixels
    workers: CountOrZero = 2  # data workers; 0 reads in the training process
    # where decoded training images are kept, shrunk to the largest size that training uses: in memory, or
    # in a file in the data set's .detector/ that the next run reuses; auto: in memory if all of them need
    # at most a quarter of what is free. It affects only speed
    cache: Literal["auto", "none", "ram", "disk"] = "auto"
    cache_limit: Positive | None = None  # GB; None: half of the free memory or disk space
    # n: mosaic, paste, cutmix and mixup take their other images from the last n of the epoch, not from
    # all images, so each image is decoded once. Batches are then less varied: take four batches or more
    tile_buffer: CountOrZero = 0
    # how often an image occurs in an epoch: once; by LVIS's repeat factor; all classes equally often
    sampling: Literal["none", "repeat_factor", "class_balanced"] = "none"
    # of repeat_factor: classes on a smaller fraction of the images are repeated
    sampling_threshold: Fraction = 0.001

    @model_validator(mode="after")
    def _check_tile_buffer(self) -> Self:
        if 0 < self.tile_buffer < MIN_TILE_BUFFER:
            raise ValueError(
                f"tile_buffer {self.tile_buffer} is too small for varied mosaics; try four batches (at "
                f"least {MIN_TILE_BUFFER} images), or 0 to mix from all images"
            )
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        names = self.classes or ()
        if len(set(names)) < len(names):
            raise ValueError(f"classes: {max(names, key=names.count)!r} is a duplicate")
        return self

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        largest = LARGEST_STRIDE
        if self.size % largest:
            below = self.size // largest * largest
            raise ValueError(
                f"size {self.size} is not a multiple of the largest stride, {largest}; "
                f"try {below or largest} or {below + largest}"
            )
        return self


class LossConfig(Section):
    """Gains and targets of the current YOLOv4 PyTorch recipe."""

    # which of the (anchor, cell) candidates of a box learn it: all; those of lowest cost (SimOTA); those
    # whose class and box agree best with it (task-aligned). See detector/losses/dynamic_assign.py
    assigner: Literal["anchor_ratio", "simota", "task_aligned"] = "anchor_ratio"
    box_loss: Literal["ciou", "giou", "diou", "eiou", "siou"] = "ciou"
    # objectness target of a match: 1 - box loss, at least 0 (with ciou its CIoU, as published), IoU, or
    # 1; task_aligned has its own
    obj_target: Literal["box_loss", "iou", "one"] = "box_loss"
    cls_loss: Literal["bce", "focal", "varifocal"] = "bce"
    # of a classifier; None: that of the network, margin for capsnet and cross_entropy for the others
    classifier: Literal["cross_entropy", "margin"] | None = None
    # weights of the class loss, one per class; balanced: inverse to the number of a class's objects
    class_weights: Annotated[
        Annotated[Literal["balanced"], Tag("<word>")]
        | Annotated[tuple[Positive, ...] | None, Tag("<list>")],
        Discriminator(_shape_of_list),
    ] = None
    box: NonNegative = 0.05
    obj: NonNegative = 0.6
    cls: NonNegative = 0.3  # for 80 classes; scaled by classes / 80
    # factor of `cls`: the published gain learns classes slowly, over hundreds of thousands of steps
    cls_factor: Positive = 1.0
    # weights of the objectness loss by level. None: 4, 1, 0.4 for three levels; 4, 1 for two
    balance: tuple[Positive, ...] | None = None
    # a box matches an anchor if their widths and their heights differ by less than this factor
    anchor_ratio: Annotated[float, Field(gt=1, le=LARGEST)] = 4.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ScheduleConfig(BaseModel):
    """A schedule with parameters, e.g. `{name: polynomial, power: 0.9}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


# Defaults that differ for AdamW, whose steps are about lr per weight, whatever the gradient
ADAMW = {"lr": 0.001, "weight_decay": 0.05, "warmup_bias_lr": 0.0}
ADAMW_LR_LIMIT = 0.01  # a larger value was meant for SGD


class TrainConfig(Section):
    """The optimizer, its schedule and the run."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    # images per batch. auto: as many as fit into the GPU's memory, up to the nominal batch; on a CPU 16
    batch_size: CountOrAuto = 16
    nominal_batch: Count = 64  # gradients are accumulated over about this many images
    optimizer: str = "sgd"  # or adamw, with its own defaults: ADAMW
    lr: Positive = 0.01
    # factors of lr by part of the network: {backbone: 0.1}
    lr_groups: dict[str, Positive] = {}  # noqa: RUF012  # pydantic copies it
    # cosine, linear, polynomial, step, one_cycle, constant; see detector/engine/schedule.py
    schedule: Annotated[
        Annotated[str, Tag("<name>")] | Annotated[ScheduleConfig, Tag("<parameters>")],
        Discriminator(lambda value: "<name>" if isinstance(value, str) else "<parameters>"),
    ] = "cosine"
    lr_final: Fraction = 0.1  # fraction of lr at the end of the schedule
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.937  # for adamw, beta1
    weight_decay: NonNegative = 5e-4  # at the nominal batch
    clip_norm: NonNegative = 0.0  # largest norm of a step's gradient, summed over images; 0: off
    freeze: tuple[str, ...] = ()  # parts that are not trained: [backbone.stage*, "*.norm"]
    freeze_epochs: CountOrZero = 0  # `freeze` ends after this many epochs; 0: with the run
    # the run ends after this many evaluations without a better AP; 0: off
    patience: CountOrZero = 0
    warmup_epochs: NonNegative = 3.0
    warmup_min_steps: CountOrZero = 1000
    warmup_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    warmup_bias_lr: NonNegative = 0.1
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999  # per optimizer step
    ema_warmup: Positive = 2000.0  # decay at step n is ema_decay * (1 - exp(-n / ema_warmup))
    # a step with a non-finite loss or gradient ends the run, or is skipped; the run also ends if more
    # than nonfinite_limit steps in a row are skipped
    nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: Count = 10
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: the fastest on the device
    channels_last: bool = True
    compile: bool = False  # torch.compile for training: minutes at the start, faster steps on a GPU
    # blocks keep their input alone, and the backward pass computes their maps again: less memory, slower
    activation_checkpointing: bool = False
    # CUDA graphs for the forward and backward pass: the GPU does not wait for Python. auto: where it can
    capture: FlagOrAuto = "auto"
    # the same bits in every run on a GPU too, at some cost in speed; torch warns of operations without a
    # deterministic version. On a CPU runs are always deterministic
    deterministic: bool = False
    weights: Annotated[str | None, AsWritten()] = (
        None  # a .pt or .weights to start from; --weights sets it
    )
    device: Annotated[str, AsWritten()] = "auto"  # auto: the first GPU, else the CPU
    threads: Annotated[int, Field(ge=0, le=4096)] = 0  # CPU threads; 0 leaves it to torch
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    eval_every: Count = 1  # epochs between evaluations; the last epoch is always evaluated
    # checkpoints within an epoch: every n optimizer steps, or every "90s", "10m", "1h"; 0: none
    checkpoint_every: Annotated[
        Annotated[CountOrZero, Tag("<number>")] | Annotated[Duration, Tag("<duration>")],
        Discriminator(lambda value: "<duration>" if isinstance(value, str) else "<number>"),
    ] = "10m"
    sync_bn: bool = True  # with several ranks: BatchNorm statistics over all of them
    # trackers that get curves and pictures besides the run folder; each is an extra to install
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    # batches between logged norms of weights and gradients, within an epoch; 0: none
    norms_every: CountOrZero = 100

    @model_validator(mode="wrap")
    @classmethod
    def _set_adamw_defaults(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, dict) or values.get("optimizer") != "adamw":  # pyright: ignore
            return validate(values)
        config = validate({**ADAMW, **values})  # pyright: ignore
        config.model_fields_set.difference_update(ADAMW.keys() - values.keys())  # pyright: ignore
        return config

    @model_validator(mode="after")
    def _check_passes(self) -> Self:
        if self.compile and self.activation_checkpointing:
            raise ValueError(
                "activation_checkpointing: torch.compile chooses itself what to compute again; switch it "
                "or compile off"
            )
        return self

    @model_validator(mode="after")
    def _check_adamw_rates(self) -> Self:
        if self.optimizer == "adamw" and max(self.lr, self.warmup_bias_lr) > ADAMW_LR_LIMIT:
            raise ValueError(
                f"lr {self.lr:g} and warmup_bias_lr {self.warmup_bias_lr:g} are too large for adamw; "
                f"try lr={ADAMW['lr']:g} and warmup_bias_lr={ADAMW['warmup_bias_lr']:g}"
            )
        return self


class EvalConfig(Section):
    """Postprocessing and evaluation."""

    # computes COCO AP. auto: hotcoco if it is installed, else pycocotools; both give the same bits
    backend: Literal["auto", "pycocotools", "hotcoco"] = "auto"
    batch_size: Count = 16
    # how images are placed. letterbox: in a square; rectangular: batches by aspect ratio, with as little
    # padding as a grid of 32 px allows; pytorch_yolov4: batches by aspect ratio on a grid of 64 px, with
    # half a cell of padding; darknet: stretched, with its own suppression. Published numbers were made
    # with the last two
    protocol: Literal["letterbox", "rectangular", "pytorch_yolov4", "darknet"] = "letterbox"
    conf: Fraction = 0.001  # confidence threshold of candidates, pairs of box and class
    nms_iou: Fraction = 0.65  # protocol darknet uses 0.6
    max_detections: Count = 300  # per image; protocol darknet keeps all
    # test-time augmentation: the detections at every scale and, with `flip`, mirrored, are merged
    scales: Annotated[tuple[Annotated[float, Field(ge=0.05, le=8)], ...], Field(min_length=1)] = (
        1.0,
    )
    flip: bool = False
    # standard deviation of normal noise on validation images, the same at every evaluation: how robust a
    # network is; the range of an image is [0, 1]
    noise: Fraction = 0.0


# What `recipe: auto` derives from the size of a run unless a YAML or the command line sets it; the
# defaults of these keys are the published recipe
RECIPE_KEYS = (
    "train.batch_size",  # at most the nominal batch
    "train.nominal_batch",
    "train.optimizer",
    "train.lr",
    "train.lr_final",
    "train.weight_decay",
    "train.warmup_epochs",
    "train.warmup_min_steps",
    "train.warmup_bias_lr",
    "train.ema_decay",
    "train.ema_warmup",
    "train.eval_every",
    *("train.freeze", "train.freeze_epochs"),
    "bag.mosaic_off_epochs",
    *("loss.cls_factor", "loss.box", "loss.obj_target"),
)


class Config(Section):
    """A whole run."""

    # auto: the keys of RECIPE_KEYS that are not set follow from the number of images, epochs and objects;
    # published: they have the defaults of this file; resolved: likewise, as a run that was auto writes it
    recipe: Literal["auto", "published", "resolved"] = "auto"

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    bag: BagConfig = BagConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
