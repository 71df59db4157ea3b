"""Changes to an exported ONNX graph: composed Mish, suppression, metadata.

Imports onnx at the top: import this module only once `require_export_packages` has passed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from onnx import compose, helper, parser

# Suppression within each class and image. NonMaxSuppression returns rows (image, class, box); they are
# sorted by image and written, padded with score 0, to one row per image, of which TopK takes the best.
NMS_GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
nms (float[B, N, 4] nms_boxes, float[B, N, C] nms_scores)
  => (float[B, K, 4] boxes_xyxy, float[B, K] scores, int64[B, K] labels)
<int64[1] per_class = {{{max_detections}}}, float[1] iou = {{{nms_iou}}}, float[1] conf = {{{conf}}},
 int64[1] top = {{{max_detections}}}, int64 zero = {{0}}, int64[1] zeros = {{0}}, int64[1] one = {{1}},
 int64[1] two = {{2}}, int64[1] three = {{3}}, int64[1] minus_one = {{-1}}, int64[1] axis = {{-1}},
 float no_score = {{0.0}}>
{{
  by_class = Transpose <perm = [0, 2, 1]> (nms_scores)
  found = NonMaxSuppression (nms_boxes, by_class, per_class, iou, conf)
  found_image = Slice (found, zeros, one, axis)
  flat_image = Squeeze (found_image, axis)
  count = Shape (flat_image)
  sorted_image, order = TopK <largest = 0> (flat_image, count)
  rows = Gather <axis = 0> (found, order)
  image = Slice (rows, zeros, one, axis)
  label = Slice (rows, one, two, axis)
  box = Slice (rows, two, three, axis)

  batch = Shape <start = 0, end = 1> (nms_scores)
  ones = Expand (one, count)
  zero_counts = ConstantOfShape <value = int64[1] {{0}}> (batch)
  counts = ScatterElements <axis = 0, reduction = "add"> (zero_counts, sorted_image, ones)
  starts = CumSum <exclusive = 1> (counts, zero)
  start = Gather <axis = 0> (starts, sorted_image)
  scalar_count = Squeeze (count)
  scalar_one = Squeeze (one)
  numbers = Range (zero, scalar_count, scalar_one)
  place = Sub (numbers, start)
  place_column = Unsqueeze (place, axis)
  cell = Concat <axis = 1> (image, place_column)

  largest = ReduceMax <keepdims = 1> (counts)
  width = Max (largest, top)
  table = Concat <axis = 0> (batch, width)
  score_at = Concat <axis = 1> (image, label, box)
  row_scores = GatherND (by_class, score_at)
  empty_scores = Expand (no_score, table)
  padded_scores = ScatterND (empty_scores, cell, row_scores)
  empty_labels = Expand (minus_one, table)
  flat_label = Squeeze (label, axis)
  padded_labels = ScatterND (empty_labels, cell, flat_label)
  empty_boxes = Expand (zeros, table)
  flat_box = Squeeze (box, axis)
  padded_boxes = ScatterND (empty_boxes, cell, flat_box)

  scores, best = TopK <axis = 1> (padded_scores, top)
  labels = GatherElements <axis = 1> (padded_labels, best)
  best_boxes = GatherElements <axis = 1> (padded_boxes, best)
  box_rows = Unsqueeze (best_boxes, axis)
  boxes_xyxy = GatherND <batch_dims = 1> (nms_boxes, box_rows)
}}
"""


def append_nms(model: Any, *, conf: float, nms_iou: float, max_detections: int) -> Any:
    """Adds suppression to a graph with the outputs boxes_xyxy [B, N, 4] and scores [B, N, C].

    Args:
        model: an onnx.ModelProto.
        conf: lowest score, exclusive.
        nms_iou: a box is suppressed if its IoU with a better one of its class exceeds this.
        max_detections: per image.

    Returns:
        A new model with the outputs boxes_xyxy [B, K, 4], scores [B, K] and labels int64 [B, K], best
        first, K = max_detections. After the last detection, scores are 0 and labels -1.
    """
    text = NMS_GRAPH.format(
        ir_version=model.ir_version,
        opset=model.opset_import[0].version,
        conf=f"{conf:.9f}",
        nms_iou=f"{nms_iou:.9f}",
        max_detections=max_detections,
    )
    nms = compose.add_prefix(
        parser.parse_model(text), "nms/", rename_inputs=False, rename_outputs=False
    )
    renamed = {"boxes_xyxy": "nms_boxes", "scores": "nms_scores"}
    return compose.merge_models(
        rename_values(model, {old: f"all_{old}" for old in renamed}),
        nms,
        [(f"all_{old}", new) for old, new in renamed.items()],
    )


def rename_values(model: Any, names: Mapping[str, str]) -> Any:
    """Renames values of a graph in place, wherever they occur; returns the model."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    return model


def compose_mish(model: Any) -> Any:
    """Replaces each Mish operator, in place, by x * tanh(softplus(x)), for runtimes that lack it."""
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Mish":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        nodes += [
            helper.make_node("Softplus", [x], [f"{y}/softplus"], name=f"{node.name}/softplus"),
            helper.make_node("Tanh", [f"{y}/softplus"], [f"{y}/tanh"], name=f"{node.name}/tanh"),
            helper.make_node("Mul", [x, f"{y}/tanh"], [y], name=f"{node.name}/mul"),
        ]
    _replace_nodes(model, nodes)
    return model


def _replace_nodes(model: Any, nodes: Iterable[Any]) -> None:
    copies = list(nodes)
    model.graph.ClearField("node")
    model.graph.node.extend(copies)


def remove_traces(model: Any) -> Any:
    """Removes, in place, what the exporter notes at each node: source lines with the paths of this
    machine, several times the size of a small network's graph.
    """
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    return model


def set_metadata(model: Any, values: Mapping[str, str]) -> Any:
    """Writes keys and texts into the model's metadata, in place."""
    model.ClearField("metadata_props")
    helper.set_model_props(model, dict(values))
    model.producer_name = "detector"
    return model


def save_onnx(model: Any, path: str) -> None:
    """Checks a model and writes it as one file; its weights are far below the format's 2 GB."""
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def load_onnx(path: str) -> Any:
    """Reads a model."""
    return onnx.load_model(path)
