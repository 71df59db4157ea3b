"""INT8 by onnxruntime's post-training quantization."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def quantize_onnx(source: Path, target: Path, batches: Iterable[np.ndarray]) -> None:
    """Quantizes weights per channel and activations per tensor, in QDQ form.

    The network's last convolutions and the decoding stay in float32: pixels and logits do not fit
    into 256 steps, and both cost next to nothing.

    Args:
        source: an ONNX file in float32, one input.
        target: the file to write.
        batches: images as the file takes them, float32 [B, 3, H, W] in [0, 1]; they set the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # advice about a step that has been done
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load_model(str(prepared)).graph
            quantize_static(
                str(prepared),
                str(target),
                _make_reader(graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=find_decoding(graph.node),
            )
        finally:
            logger.setLevel(level)


def find_decoding(nodes: Iterable[Any]) -> list[str]:
    """Names of the last convolutions of an ONNX graph and of all nodes that follow them.

    A node belongs to them if no other convolution depends on it.
    """
    names = []
    before_convolution: set[str] = set()  # values on which a convolution depends
    for node in reversed(list(nodes)):  # a graph lists its nodes in topological order
        feeds = any(value in before_convolution for value in node.output)
        if feeds or node.op_type == "Conv":
            before_convolution.update(node.input)
        if not feeds:
            names.append(node.name)
    return names


def _make_reader(name: str, batches: Iterable[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = iter(batches)

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    return Reader()
