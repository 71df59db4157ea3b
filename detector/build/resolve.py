"""What `auto` in a config becomes: recipe, anchors from the boxes, batch size from free memory."""

import numpy as np
import torch

from detector.anchors import AnchorFit, Anchors, cluster_anchors, flatten_anchors, measure_fit
from detector.build.data import Data, build_train_sizes
from detector.build.model import build_anchors, is_classifier
from detector.build.recipe import resolve_recipe
from detector.build.training import build_criterion, build_optimizer, build_training_network
from detector.config import Config, TrainConfig, replace_values
from detector.data import Index, letterboxed_box_sizes
from detector.engine import (
    Hardware,
    MemoryProbe,
    ProcessGroup,
    divide_nominal_batch,
    find_max_batch_size,
)
from detector.errors import UserError

PUBLISHED_FIT = 0.9  # of the mean IoU of clustered anchors, from which the published ones are kept
MIN_BOXES_PER_ANCHOR = 10  # fewer say little about the sizes of boxes that are not in the data set


def resolve_config(
    config: Config,
    data: Data,
    hardware: Hardware,
    process_group: ProcessGroup,
    *,
    pretrained: bool = False,
) -> tuple[Config, Data, list[str]]:
    """Resolves all that the config leaves open.

    Args:
        config: as it was loaded; it knows which keys the user has set.
        data: of the run.
        hardware: where it trains.
        process_group: the ranks that train together.
        pretrained: whether it starts from trained weights.

    Returns:
        The config with numbers, the data that mix images as long as it says, and lines for the user.

    Raises:
        UserError: too few boxes for anchors, or not even one image fits into the memory.
    """
    if is_classifier(config.model):  # its recipe has no rules, and it has no anchors
        config = replace_values(config, {"recipe": "published"})
    index = data.train.reader.index
    objects = float((~index.crowd).sum()) / max(len(index), 1)
    config, recipe = resolve_recipe(
        config, len(data.train), len(data.val), objects=objects, pretrained=pretrained
    )
    anchors: list[str] = []
    if not is_classifier(config.model):
        config, anchors = resolve_anchors(config, index)
    config, weights = resolve_class_weights(config, index)
    config, batch = resolve_batch_size(config, len(data.names), hardware, process_group)
    if config.recipe == "auto":
        config = replace_values(config, {"recipe": "resolved"})
    data = data.with_mosaic_until(config.train.epochs - config.bag.mosaic_off_epochs)
    return config, data, [*recipe, *anchors, *weights, *batch]


def find_anchors(config: Config, index: Index, start: Anchors, seed: int = 0) -> Anchors:
    """Clusters the boxes of a split at `data.size` into as many anchors as `start` has, without crowds.

    Raises:
        UserError: too few boxes.
    """
    sizes = letterboxed_box_sizes(index, config.data.size)[~index.crowd]
    try:
        return cluster_anchors(sizes, start, ratio=config.loss.anchor_ratio, seed=seed)
    except ValueError as error:
        raise UserError(
            f"{index.annotations}: too few boxes: {error}; remove model.anchors to keep the "
            f"network's published ones"
        ) from None


def resolve_anchors(config: Config, train: Index) -> tuple[Config, list[str]]:
    """The config with anchors for the training boxes, if it asks for them, and lines for the user.

    `model.anchors: auto` clusters the boxes. With `recipe: auto` and no anchors in the config, the
    published ones stay if their mean IoU with the boxes is at least `PUBLISHED_FIT` of that of clustered
    ones, or if the boxes are too few to cluster.

    Raises:
        UserError: `model.anchors: auto` with too few boxes, or with a darknet cfg, which has its own.
    """
    wanted, darknet = config.model.anchors, config.model.darknet_cfg is not None
    if darknet and wanted == "auto":
        raise UserError(
            f"model.anchors: auto: {config.model.arch} sets the anchors; change them there"
        )
    if darknet or not (wanted in ("auto", "published") or config.recipe == "auto"):
        return config, []
    published = build_anchors(config.model, len(train.names))
    if wanted is None:
        anchors, lines = _choose_anchors(config, train, published)
        return replace_values(config, {"model.anchors": anchors}), lines
    if wanted == "published":
        return replace_values(config, {"model.anchors": published}), []
    if wanted != "auto":
        return config, []
    anchors = find_anchors(config, train, published)
    before, after = _measure_both(config, train, published, anchors)
    lines = [
        f"published anchors: {before}",
        f"anchors of this data set: {after}: {_list_anchors(anchors)}",
    ]
    return replace_values(config, {"model.anchors": anchors}), lines


def _choose_anchors(config: Config, train: Index, published: Anchors) -> tuple[Anchors, list[str]]:
    """Clustered anchors where the published ones fit badly; see `resolve_anchors`."""
    boxes = int((~train.crowd).sum())
    if boxes < MIN_BOXES_PER_ANCHOR * len(flatten_anchors(published)):
        return published, [f"anchors: published; {boxes} boxes are too few to cluster"]
    try:
        anchors = find_anchors(config, train, published)
    except UserError:
        return published, ["anchors: published; the boxes have too few distinct sizes to cluster"]
    before, after = _measure_both(config, train, published, anchors)
    fits = f"mean best IoU {before.mean_iou:.3f} published, {after.mean_iou:.3f} clustered"
    if before.mean_iou >= PUBLISHED_FIT * after.mean_iou and before.matched >= after.matched - 0.01:
        return published, [f"anchors: published ({fits})"]
    return anchors, [f"anchors: clustered ({fits}): {_list_anchors(anchors)}"]


def _list_anchors(anchors: Anchors) -> str:
    return "  ".join(f"{width:g},{height:g}" for width, height in flatten_anchors(anchors))


def _measure_both(
    config: Config, train: Index, published: Anchors, clustered: Anchors
) -> tuple[AnchorFit, AnchorFit]:
    sizes = letterboxed_box_sizes(train, config.data.size)[~train.crowd]
    ratio = config.loss.anchor_ratio
    return (
        measure_fit(sizes, flatten_anchors(published), ratio),
        measure_fit(sizes, flatten_anchors(clustered), ratio),
    )


def resolve_class_weights(config: Config, train: Index) -> tuple[Config, list[str]]:
    """The config with numbers in place of `loss.class_weights: balanced`, and a line for the user.

    The weight of a class is inversely proportional to the number of its objects, crowds aside; over the
    objects the mean is 1. A class without objects weighs as much as the rarest.
    """
    if config.loss.class_weights != "balanced":
        return config, []
    counts = np.bincount(train.labels[~train.crowd], minlength=len(train.names))
    present = counts[counts > 0]
    rarest = present.min() if len(present) else 1
    weights = counts.sum() / max(len(present), 1) / np.where(counts > 0, counts, rarest)
    rounded = tuple(float(f"{weight:.4g}") for weight in weights) if len(present) else None
    extremes = weights.argmin(), weights.argmax()
    line = "class weights: " + ", ".join(f"{train.names[n]} {weights[n]:.3g}" for n in extremes)
    return replace_values(config, {"loss.class_weights": rounded}), [line]


def resolve_batch_size(
    config: Config, num_classes: int, hardware: Hardware, process_group: ProcessGroup
) -> tuple[Config, list[str]]:
    """The config with a number in place of `train.batch_size: auto`, and lines for the user on it.

    On a GPU, the largest batch that fits into the free memory, measured with real steps at the largest
    training size, and rounded down so that the nominal batch divides evenly. On a CPU, the default.

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
        one = replace_values(config, {"train.batch_size": 1})
        model = build_training_network(config, num_classes)
        hardware.place(model)
        probe = MemoryProbe(
            model,
            build_criterion(config, model, num_classes).to(hardware.device),
            build_optimizer(one, model),
            hardware,
            size=max(build_train_sizes(config), default=config.data.size),
        )
        share = -(-train.nominal_batch // process_group.world_size)
        with probe:
            largest = min(process_group.gather_objects(find_max_batch_size(probe.fits, share)))
        del model, probe
        torch.cuda.empty_cache()
        if not largest:
            raise UserError(
                f"the memory of {hardware.device} is too small for one image of {config.data.size} px; "
                f"try a smaller data.size or model.arch"
            )
        number = divide_nominal_batch(train.nominal_batch, largest * process_group.world_size)
        line = (
            f"batch_size: auto: {largest} images fit into the memory of {hardware.device}; batches of "
            f"{number}, {max(round(train.nominal_batch / number), 1)} of them per step"
        )
    return replace_values(config, {"train.batch_size": number}), [line]
