"""A trained detector as a file for other runtimes: ONNX, torch.export, OpenVINO.

Read `inference_model` (what the file computes), `metadata` (what it says about itself), `writers` (one
function per format; `onnx_graph` and `quantize` change the ONNX graph), then `runtimes` and
`exported_model` (running such a file in place of the PyTorch model).
"""

from detector.export.exported_model import ExportedModel, is_exported_file, open_exported
from detector.export.inference_model import InferenceModel
from detector.export.metadata import ExportMetadata
from detector.export.quantize import quantize_onnx
from detector.export.runtimes import OnnxRuntime
from detector.export.writers import (
    SUFFIXES,
    ExportOptions,
    require_export_packages,
    write_exported,
)

__all__ = [
    "SUFFIXES",
    "ExportMetadata",
    "ExportOptions",
    "ExportedModel",
    "InferenceModel",
    "OnnxRuntime",
    "is_exported_file",
    "open_exported",
    "quantize_onnx",
    "require_export_packages",
    "write_exported",
]
