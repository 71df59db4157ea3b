"""Writing an exported file: one function per format."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detector.errors import UserError
from detector.export.inference_model import InferenceModel
from detector.export.metadata import ExportMetadata

INPUTS, OUTPUTS = ("images",), ("boxes_xyxy", "scores")
OPSET = 20  # ONNX has Mish from 18 on
LARGEST_SIZE = 200 * 32  # px; torch.export wants a bound for a dynamic dimension
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "openvino": ".xml"}
PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: onnx, torch_export or openvino.
        mish: "operator", or "composed" of softplus, tanh and a product for runtimes without it.
        quantize: turns an ONNX file in float32 into one in int8: source and target.
    """

    format: str = "onnx"
    mish: str = "operator"
    quantize: Callable[[Path, Path], None] | None = None


def require_export_packages(file_format: str, *, int8: bool = False) -> None:
    """Checks that what a format needs is installed.

    Raises:
        UserError: names the missing packages and how to install them.
    """
    needed = PACKAGES[file_format] + (("onnxruntime",) if int8 else ())
    missing = [name for name in dict.fromkeys(needed) if importlib.util.find_spec(name) is None]
    if missing:
        extra = "openvino" if file_format == "openvino" else "onnx"
        raise UserError(
            f"export to {file_format} needs {', '.join(missing)}: pip install 'detector[{extra}]'"
        )


def write_exported(
    model: Any, path: Path, metadata: ExportMetadata, options: ExportOptions
) -> list[Path]:
    """Writes a model to `path`, whose folder exists, and returns all files that it consists of.

    Args:
        model: a detector in evaluation mode, on the CPU.
        path: ends with the format's suffix.
        metadata: written into the file; its `precision`, `shape` and `nms` say how to export.
        options: format and the rest.

    Raises:
        UserError: torch cannot export the network; an operating-system error stays an OSError.
    """
    half = metadata.precision == "fp16"
    inference_model = InferenceModel(model, torch.float16 if half else torch.float32).eval()
    if options.format == "torch_export":
        _write_torch_export(inference_model, path, metadata)
        return [path]
    if options.format == "onnx":
        _write_onnx(inference_model, path, metadata, options)
        return [path]
    _write_openvino(inference_model, path, metadata, options)
    return [path, path.with_suffix(".bin")]


def _write_onnx(
    model: InferenceModel, path: Path, metadata: ExportMetadata, options: ExportOptions
) -> None:
    from detector.export import onnx_graph

    graph = onnx_graph.remove_traces(_convert_to_onnx(model, metadata))
    if options.quantize is not None:
        plain = path.with_name(f"{path.stem}.fp32.onnx")
        onnx_graph.save_onnx(graph, str(plain))
        options.quantize(plain, path)
        graph = onnx_graph.load_onnx(str(path))
        plain.unlink()
    if options.mish == "composed":
        graph = onnx_graph.compose_mish(graph)
    if metadata.nms:
        graph = onnx_graph.append_nms(
            graph,
            conf=metadata.conf,
            nms_iou=metadata.nms_iou,
            max_detections=metadata.max_detections,
        )
    onnx_graph.save_onnx(onnx_graph.set_metadata(graph, metadata.to_strings()), str(path))


def _convert_to_onnx(model: InferenceModel, metadata: ExportMetadata) -> Any:
    """The graph as an onnx.ModelProto, by torch's dynamo exporter."""
    with _reporting_failures():
        program = torch.onnx.export(
            model,
            (_make_example(metadata),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=_name_dynamic_dimensions(metadata),
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _reporting_failures() -> Iterator[None]:
    """Hides the exporters' warnings, about their internals, and turns their failure into a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # torch.onnx wraps the reason in advice
            cause = cause.__cause__
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise UserError(
            f"torch cannot export the network: {reason}; a module of its own, such as an activation, has "
            f"to be traceable by torch.export"
        ) from error


def _make_example(metadata: ExportMetadata) -> torch.Tensor:
    """Images of the fixed shape; or two, of unequal sides, so that no dimension looks constant."""
    step = max(metadata.strides)
    batch, height, width = metadata.shape or (2, 2 * step, 3 * step)
    return torch.zeros(batch, 3, height, width)


def _name_dynamic_dimensions(metadata: ExportMetadata) -> dict[str, Any] | None:
    if metadata.shape is not None:
        return None
    return {"images": {0: "batch", 2: "height", 3: "width"}}


def _write_torch_export(model: InferenceModel, path: Path, metadata: ExportMetadata) -> None:
    dynamic = None
    if metadata.shape is None:
        largest, step = LARGEST_SIZE, max(metadata.strides)
        height, width = (
            step * torch.export.Dim(name, min=1, max=largest // step)
            for name in ("rows", "columns")
        )
        dynamic = {"images": {0: torch.export.Dim("batch", min=1), 2: height, 3: width}}
    with torch.no_grad(), _reporting_failures():
        program = torch.export.export(model, (_make_example(metadata),), dynamic_shapes=dynamic)
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=metadata.to_strings())
    path.write_bytes(content.getvalue())  # a full disk is then an OSError


def _write_openvino(
    model: InferenceModel, path: Path, metadata: ExportMetadata, options: ExportOptions
) -> None:
    import openvino  # pyright: ignore[reportMissingImports]  # an extra

    source = path.with_suffix(".onnx")
    _write_onnx(model, source, metadata, options)
    converted = openvino.convert_model(source)
    for name, value in metadata.to_strings().items():
        converted.set_rt_info(value, ["detector", name])
    # its own compression skips networks with suppression inside; the graph is in fp16 already
    openvino.save_model(converted, path, compress_to_fp16=False)
    source.unlink()
