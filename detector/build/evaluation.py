"""Ground truth, postprocessing and the evaluator."""

import functools
from typing import Any

from detector.build.data import build_val
from detector.build.model import is_classifier
from detector.config import Config, EvalConfig
from detector.data import (
    ValSet,
    coco_tree,
    find_annotation_file,
    find_category_ids,
    load_data_yaml,
    read_json,
    read_split,
    val_loader,
)
from detector.engine import Hardware, ProcessGroup
from detector.errors import UserError
from detector.evaluation import CocoAP, Evaluator, GroundTruth, TopKEvaluator, make_tta_views
from detector.postprocess import Postprocess, suppress, suppress_darknet
from detector.structures import Batch


def build_ground_truth(dataset: str) -> GroundTruth:
    """The ground truth of the validation split; COCO's layout needs no images.

    Raises:
        UserError: no such data set, or not in its format.
    """
    data_yaml, root = load_data_yaml(dataset)
    path = find_annotation_file(data_yaml, root, "val")
    if path is None:
        index = read_split(data_yaml, root, "val")
        return GroundTruth.from_coco(coco_tree(index), index.category_ids.tolist())
    content = read_json(path)
    ids = find_category_ids(content, data_yaml.names)
    return GroundTruth.from_coco(content, list(ids.values()))


def build_postprocess(config: EvalConfig, conf: float | None = None) -> Postprocess:
    """The confidence threshold and NMS of `eval.protocol`; `conf` overrides the config's."""
    conf = config.conf if conf is None else conf
    if config.protocol == "darknet":
        return Postprocess(conf, suppress_darknet)
    nms = functools.partial(suppress, nms_iou=config.nms_iou, max_detections=config.max_detections)
    return Postprocess(conf, nms)


def describe_evaluation(config: Config) -> dict[str, Any]:
    """The settings that an AP depends on, for reports."""
    return {
        "size": config.data.size,
        "protocol": config.eval.protocol,
        "scales": list(config.eval.scales),
        "flip": config.eval.flip,
    }


def build_evaluator(
    config: Config, val: ValSet, hardware: Hardware, process_group: ProcessGroup | None = None
) -> Evaluator:
    """COCO AP on the validation split, shared between the ranks."""
    index = val.reader.index
    if not len(index):
        raise UserError(f"{index.annotations}: it lists no images to evaluate on")
    return Evaluator(
        _load_val(config, val, hardware, process_group),
        CocoAP(
            # a file's own annotations, for their areas
            index.annotations if index.annotations.suffix == ".json" else coco_tree(index),
            index.category_ids.tolist(),
            backend=config.eval.backend,
        ),
        build_postprocess(config.eval),
        hardware=hardware,
        process_group=process_group,
        tta_views=make_tta_views(config.eval.scales, flip=config.eval.flip),
    )


def _load_val(
    config: Config, val: ValSet, hardware: Hardware, process_group: ProcessGroup | None
) -> Any:
    """The validation batches of this rank."""
    return val_loader(
        val,
        workers=config.data.workers,
        pin_memory=hardware.device.type == "cuda",
        batches=process_group.shard(val.batches) if process_group else None,
    )


def load_first_batches(
    config: Config, split: str, count: int, hardware: Hardware
) -> tuple[list[Batch], dict[str, Any]]:
    """The first images of a split, placed as in an evaluation, on the device; and what they depend on.

    Raises:
        UserError: no such split, or none of its images can be read.
    """
    dataset = build_val(config, split)
    chosen, left = [], count
    for batch in dataset.batches:
        if left > 0:
            chosen.append(batch[:left])
        left -= len(batch)
    loader = val_loader(dataset, workers=config.data.workers, batches=chosen)
    batches = [hardware.move(batch) for batch in loader if len(batch)]
    if not batches:
        raise UserError(f"{dataset.reader.index.annotations}: no image of it could be read")
    about = {
        "data": [config.data.dataset, split, sum(map(len, batches)), config.data.size],
        "noise": config.eval.noise,
    }
    return batches, about


def build_run_evaluator(
    config: Config, val: ValSet, hardware: Hardware, process_group: ProcessGroup | None = None
) -> Evaluator | TopKEvaluator:
    """What evaluates the network of a run: COCO AP of a detector, top-1 and top-5 of a classifier."""
    if not is_classifier(config.model):
        return build_evaluator(config, val, hardware, process_group)
    return TopKEvaluator(
        _load_val(config, val, hardware, process_group),
        len(val.reader.index.names),
        hardware=hardware,
        process_group=process_group,
    )
