"""What `auto` in a config becomes: anchors from the training boxes, a batch size from free memory."""

import numpy as np
import torch

from detector.anchors import Anchors, cluster_anchors, flatten_anchors, measure_fit
from detector.build.data import build_train_sizes
from detector.build.model import build_anchors, build_model
from detector.build.training import build_loss, build_optimizer
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
    """The config with numbers in place of `model.anchors: auto`, and lines for the user on them.

    Raises:
        UserError: too few boxes, or a darknet cfg, which has its own anchors.
    """
    if config.model.anchors != "auto":
        return config, []
    if config.model.darknet_cfg is not None:
        raise UserError(
            f"model.anchors: auto: {config.model.arch} sets the anchors; change them there"
        )
    published = build_anchors(config.model, len(train.names))
    anchors = find_anchors(config, train, published)
    sizes = letterboxed_box_sizes(train, config.data.size)[~train.crowd]
    before, after = (
        measure_fit(sizes, flatten_anchors(each), config.loss.anchor_ratio)
        for each in (published, anchors)
    )
    words = "  ".join(f"{w:g},{h:g}" for w, h in flatten_anchors(anchors))
    lines = [f"published anchors: {before}", f"anchors of this data set: {after}: {words}"]
    return replace_values(config, {"model.anchors": anchors}), lines


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
        model = build_model(config.model, num_classes)
        hardware.place(model)
        probe = MemoryProbe(
            model,
            build_loss(config, model, num_classes).to(hardware.device),
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
