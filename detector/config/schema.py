"""The typed, frozen configuration: every key a YAML may hold, its type, its range and its default.

Each default has its one home here. Values that the published recipe fixes cite it; see
`configs/` for the variants. Reading and error messages are in `loader.py`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from detector.config.duration import parse_duration

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _duration(text: str) -> str:
    parse_duration(text)  # raises if it is none
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Anchor = tuple[Positive, Positive]

LEAST_BUFFER = 16  # images; a mosaic has up to nine
LARGEST_STRIDE = 32  # of every network of this family


class Section(BaseModel):
    """Base of every section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ActivationConfig(BaseModel):
    """An activation with parameters, e.g. `{name: leaky_relu, negative_slope: 0.2}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


def _shape_of_activation(value: Any) -> str:
    """Which form of an activation a value has, so that a mistake is reported for that form only."""
    if isinstance(value, ActivationConfig) or (isinstance(value, dict) and "name" in value):
        return "<parameters>"
    return "<parts>" if isinstance(value, dict | PartActivations) else "<name>"


ActivationSpec = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[ActivationConfig, Tag("<parameters>")],
    Discriminator(_shape_of_activation),
]


def _shape_of_anchors(value: Any) -> str:
    """Which form anchors have, so that a mistake is reported for that form only."""
    return "<word>" if isinstance(value, str) else "<list>"


class PartActivations(Section):
    """One activation for each part of the network."""

    backbone: ActivationSpec
    neck: ActivationSpec
    head: ActivationSpec


class DecoderConfig(Section):
    """How raw values become boxes; it belongs to the weights. See `detector.decode.Decoder`."""

    size: Literal["sigmoid", "exp"] = "sigmoid"  # (2s)^2 or exp(raw), times the anchor
    scale_x_y: tuple[Annotated[float, Field(ge=1)], ...] = (2.0,)  # for all levels, or one a level


class ModelConfig(Section):
    """The network. `arch` names a row of the table in `detector/models/variants.py`."""

    arch: str = "yolov4-pacsp"
    darknet_cfg: str | None = None  # text of a darknet .cfg, which then takes the place of `arch`
    activation: Annotated[
        Annotated[str, Tag("<name>")]
        | Annotated[ActivationConfig, Tag("<parameters>")]
        | Annotated[PartActivations, Tag("<parts>")],
        Discriminator(_shape_of_activation),
    ] = "mish"
    # (width, height) in pixels, a list a level, finest first; unless said, the network's published ones.
    # auto: found from the training boxes at data.size when a run starts, and then written as numbers
    anchors: Annotated[
        Annotated[Literal["auto"], Tag("<word>")]
        | Annotated[tuple[tuple[Anchor, ...], ...] | None, Tag("<list>")],
        Discriminator(_shape_of_anchors),
    ] = None
    decoder: DecoderConfig | None = None  # unless said: (2s)^2, or what the darknet cfg says
    split_half: Literal["second", "first"] = (
        "second"  # of yolov4-tiny's stages: darknet's is the second
    )
    bn_eps: Positive | None = (
        None  # unless said: 1e-4 as published, 1e-5 for darknet's cfgs and weights
    )
    bn_momentum: Share = 0.03

    @model_validator(mode="after")
    def _anchors_fit_the_levels(self) -> Self:
        anchors = [[()]] if self.anchors in (None, "auto") else self.anchors
        counts = {len(level) for level in anchors}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                "anchors: give a list for each level of the network, finest first, with equally "
                "many [width, height] pairs each"
            )
        return self


class DataConfig(Section):
    """Which images, how large, and who reads them."""

    dataset: str = "coco.yaml"  # a path, or a file name in data/
    # trained on, by name and in this order; unless said, all of the data set
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    size: Count = 640  # side of the square training and validation image, pixels
    workers: Annotated[int, Field(ge=0)] = 2  # reader processes; 0 reads in the training process
    # decoded training images are kept, shrunk to the largest size that training uses: in memory, or in a
    # file in the data set's .detector/ that the next run finds; it changes the time alone
    cache: Literal["none", "ram", "disk"] = "none"
    cache_limit: Positive | None = None  # GB; unless said, half of what is free
    # n: what is mixed into an image comes from the last n of the epoch's order, not from all images, and
    # each is decoded once. Fewer different images then make up a batch: take four batches or more
    tile_buffer: Annotated[int, Field(ge=0)] = 0
    # how often an image comes: once an epoch; by LVIS's repeat factor; so that all classes come alike
    sampling: Literal["none", "repeat_factor", "class_balanced"] = "none"
    sampling_threshold: Share = (
        0.001  # of repeat_factor: classes on a smaller share of images are rare
    )

    @model_validator(mode="after")
    def _buffer_holds_a_mosaic(self) -> Self:
        if 0 < self.tile_buffer < LEAST_BUFFER:
            raise ValueError(
                f"tile_buffer {self.tile_buffer} is too small to make different mosaics of; try four "
                f"batches (at least {LEAST_BUFFER}), or 0 for partners from all images"
            )
        return self

    @model_validator(mode="after")
    def _classes_once(self) -> Self:
        names = self.classes or ()
        if len(set(names)) < len(names):
            raise ValueError(f"classes: {max(names, key=names.count)!r} stands twice")
        return self

    @model_validator(mode="after")
    def _size_fits_the_strides(self) -> Self:
        largest = LARGEST_STRIDE
        if self.size % largest:
            below = self.size // largest * largest
            raise ValueError(
                f"size {self.size} is not a multiple of the largest stride, {largest}; "
                f"try {below or largest} or {below + largest}"
            )
        return self


class TransformConfig(BaseModel):
    """A transform of albumentations with its arguments, e.g. `{name: GaussNoise, p: 0.2}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


class BagConfig(Section):
    """The augmentations. 0 switches one off.

    `bag: yolov4` takes a named bag as it is, `bag: {preset: yolov4, mixup: 0.1}` changes keys of it;
    `bags.py` has their values.
    """

    preset: Literal["none", "mosaic", "yolov4"] = "mosaic"
    mosaic: Share = 1.0  # probability
    mosaic9: Share = 0.0  # share of the mosaics that have nine tiles, not four
    # the last n epochs see images as they are: without mosaic, paste, cutmix and mixup
    mosaic_off_epochs: Annotated[int, Field(ge=0)] = 0
    multi_scale: Annotated[float, Field(ge=1, le=4)] = (
        1.0  # f: height and width of each batch from size / f to size * f, in steps of 32
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.9  # zoom drawn from 1 - scale .. 1 + scale
    translate: Share = 0.1  # shift, share of the image side
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0  # rotation, +-
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, +-
    perspective: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # one edge nearer by this share, +-
    paste: Share = 0.0  # probability; objects of another image, cut out with their boxes
    cutmix: Share = 0.0  # probability; a region of another image; reads twice as many files
    mixup: Share = 0.0  # probability; blended with another image; reads twice as many files
    hsv_h: Share = 0.015  # gains: 1 + uniform(-1, 1) * value
    hsv_s: Share = 0.7
    hsv_v: Share = 0.4
    flip_lr: Share = 0.5  # probability; the data YAML can forbid flips (`mirrors: false`)
    flip_ud: Share = 0.0
    # DropBlock on the maps of the neck's path only: on the backbone's it costs accuracy (Long et al.,
    # "PP-YOLO", 2020, section 3.2). 0.1 and 7 are the values of Ghiasi et al., "DropBlock", 2018
    dropblock: Annotated[float, Field(ge=0, lt=1)] = 0.0  # probability for a cell to be dropped
    dropblock_size: Count = 7  # side of the dropped squares, cells
    dropblock_ramp: Share = 0.85  # share of training over which it rises from 0, as in darknet
    # self-adversarial training, after the warm-up. darknet takes half of the batches
    sat: Share = 0.0  # share of the batches
    sat_lr: Share = 0.02  # root mean square of an image's change, of 0..1; it grows up to this
    albumentations: tuple[TransformConfig, ...] = ()  # any of its transforms, in this order
    erase: Share = 0.0  # probability; a rectangle of noise


class LossConfig(Section):
    """Gains and targets of the current YOLOv4 PyTorch recipe."""

    box: NonNegative = 0.05
    obj: NonNegative = 0.6
    cls: NonNegative = 0.3  # for 80 classes; scaled by classes / 80
    balance: tuple[Positive, ...] | None = (
        None  # objectness by level; 4, 1, 0.4 for three, 4, 1 for two
    )
    anchor_ratio: Annotated[float, Field(gt=1)] = 4.0  # largest side ratio of a box and its anchor
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ScheduleConfig(BaseModel):
    """A schedule with parameters, e.g. `{name: polynomial, power: 0.9}`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str


# Where AdamW's defaults differ: it moves every number by about lr a step, whatever the gradient
ADAMW = {"lr": 0.001, "weight_decay": 0.05, "warmup_bias_lr": 0.0}
ADAMW_LR_LIMIT = 0.01  # more is a value that was meant for SGD


class TrainConfig(Section):
    """The optimiser, its schedule and the run."""

    epochs: Count = 300
    # auto: as many as the GPU's memory holds, up to the nominal batch; on a CPU 16
    batch_size: Annotated[
        Annotated[Count, Tag("<number>")] | Annotated[Literal["auto"], Tag("<word>")],
        Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>"),
    ] = 16
    nominal_batch: Count = 64  # gradients are accumulated up to this many images
    optimizer: str = "sgd"  # or adamw, with defaults of its own: ADAMW
    lr: Positive = 0.01
    lr_groups: dict[str, Positive] = {}  # factors of lr, by part: {backbone: 0.1}
    # cosine, linear, polynomial, step, one_cycle, constant; see detector/engine/schedule.py
    schedule: Annotated[
        Annotated[str, Tag("<name>")] | Annotated[ScheduleConfig, Tag("<parameters>")],
        Discriminator(lambda value: "<name>" if isinstance(value, str) else "<parameters>"),
    ] = "cosine"
    lr_final: Share = 0.1  # share of lr that the schedule ends at
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.937  # of adamw, the first beta
    weight_decay: NonNegative = 5e-4  # at the nominal batch
    clip_norm: NonNegative = 0.0  # greatest gradient of a step, a sum over its images; 0 is off
    freeze: tuple[str, ...] = ()  # parts that are not learned: [backbone.stage*, "*.norm"]
    # the run ends after so many evaluations without a better AP; 0 is off
    patience: Annotated[int, Field(ge=0)] = 0
    warmup_epochs: NonNegative = 3.0
    warmup_min_steps: Annotated[int, Field(ge=0)] = 1000
    warmup_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    warmup_bias_lr: NonNegative = 0.1
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999  # per optimiser step
    ema_warmup: Positive = 2000.0  # decay at step n is ema_decay * (1 - exp(-n / ema_warmup))
    # a step whose loss or gradient is not finite ends the run, or is left out; in the second case the
    # run ends after more than so many in a row
    nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: Count = 10
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: what the device does fast
    channels_last: bool = True
    compile: bool = False  # torch.compile for training: minutes at the start, faster steps on a GPU
    # the same bits in each run on a GPU, too, for some speed; torch warns of an operation that has no
    # such form. On a CPU they are the same anyway
    deterministic: bool = False
    weights: str | None = None  # what to start from, a .pt or a .weights; --weights sets it
    device: str = "auto"  # auto: the first GPU, else the CPU
    threads: Annotated[int, Field(ge=0)] = 0  # CPU threads; 0 leaves it to torch
    seed: Annotated[int, Field(ge=0)] = 0
    eval_every: Count = 1  # epochs between evaluations; the last epoch is always evaluated
    # checkpoints besides those of the epochs: every n optimiser steps, or "90s", "10m", "1h"; 0: none
    checkpoint_every: Annotated[
        Annotated[int, Field(ge=0), Tag("<number>")] | Annotated[Duration, Tag("<duration>")],
        Discriminator(lambda value: "<duration>" if isinstance(value, str) else "<number>"),
    ] = "10m"
    sync_bn: bool = True  # of several processes: BatchNorm with the statistics of all
    # where curves and pictures go besides the run folder; each is an install of its own
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    norms_every: Annotated[int, Field(ge=0)] = (
        100  # batches of an epoch between logged norms; 0: none
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_adamw(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("optimizer") == "adamw":  # pyright: ignore
            return {**ADAMW, **values}  # pyright: ignore
        return values  # pyright: ignore

    @model_validator(mode="after")
    def _rates_fit_adamw(self) -> Self:
        if self.optimizer == "adamw" and max(self.lr, self.warmup_bias_lr) > ADAMW_LR_LIMIT:
            raise ValueError(
                f"lr {self.lr:g} and warmup_bias_lr {self.warmup_bias_lr:g} are not for adamw; "
                f"try lr={ADAMW['lr']:g} and warmup_bias_lr={ADAMW['warmup_bias_lr']:g}"
            )
        return self


class EvalConfig(Section):
    """Post-processing and evaluation, as the published numbers were made."""

    # what computes AP; auto: hotcoco where it is installed, else pycocotools. The bits are the same
    backend: Literal["auto", "pycocotools", "hotcoco"] = "auto"
    batch_size: Count = 16
    # letterbox: a square; rectangular: batches by aspect ratio, with as little grey as a grid of 32 px
    # allows; pytorch_yolov4: a 64-pixel grid, half a cell of padding, batches by aspect ratio; darknet:
    # stretched, and its own suppression. Published numbers were made with the last two
    protocol: Literal["letterbox", "rectangular", "pytorch_yolov4", "darknet"] = "letterbox"
    conf: Share = 0.001  # pairs (box, class) with a lower score are dropped
    nms_iou: Share = 0.65  # darknet's protocol has its own, 0.6
    max_detections: Count = 300  # per image; darknet's protocol keeps all
    # test-time augmentation: every scale, and its mirror image where `flip`; found boxes are joined
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    flip: bool = False


class Config(Section):
    """A whole run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    bag: BagConfig = BagConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
