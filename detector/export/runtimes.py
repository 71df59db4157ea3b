"""Running exported files: one class per runtime, each with `metadata` and `run`."""

import json
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from detector.errors import UserError, read_regular_file


class Runtime(Protocol):
    """An exported file, ready to run.

    Attributes:
        metadata: the keys and texts in the file.
    """

    metadata: Mapping[str, str]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Images float32 [B, 3, H, W] -> the file's outputs, in order."""
        ...


class OnnxRuntime:
    """An .onnx file in ONNX Runtime, on the CPU or, with onnxruntime-gpu, on a GPU."""

    def __init__(self, path: Path, threads: int) -> None:
        """`threads`: of the computation; 0 leaves the choice to the runtime."""
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors  # pyright: ignore

        content = read_regular_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        # threads that spin while they wait take the cores from torch's
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        try:
            self.session = onnxruntime.InferenceSession(
                content, options, providers=[name for name in wanted if name in available]
            )
        except (
            errors.InvalidProtobuf,
            errors.InvalidGraph,
            errors.InvalidArgument,
            errors.NotImplemented,
            errors.Fail,
        ) as error:
            raise _refuse(path, "ONNX Runtime", error) from None
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self._input = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Images float32 [B, 3, H, W] -> the file's outputs, in order."""
        return [np.asarray(output) for output in self.session.run(None, {self._input: images})]


class OpenVINORuntime:
    """An OpenVINO .xml with its .bin, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        """`threads`: of the computation; 0 leaves the choice to the runtime."""
        import openvino  # pyright: ignore[reportMissingImports]  # an extra

        read_regular_file(path)
        read_regular_file(path.with_suffix(".bin"), hint=f"it holds the weights of {path.name}")
        core = openvino.Core()
        # the CPU plug-in computes in bf16 where it can unless told otherwise
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            model = core.read_model(path)
            self.metadata = _read_rt_info(model)
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
            self._lock = threading.Lock()  # a request serves one caller at a time
        except RuntimeError as error:
            raise _refuse(path, "OpenVINO", error) from None

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Images float32 [B, 3, H, W] -> the file's outputs, in order."""
        with self._lock:
            outputs = self._request.infer([images], share_inputs=True)
            return [np.array(value) for value in outputs.values()]


def _read_rt_info(model: Any) -> dict[str, str]:
    if not model.has_rt_info(["detector"]):
        return {}
    return {
        name: str(value.value if hasattr(value, "value") else value)
        for name, value in model.get_rt_info(["detector"]).value.items()
    }


class TorchExportRuntime:
    """A .pt2 of torch.export, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        """`threads` is ignored: torch's own number counts."""
        from detector.export.metadata import MARK, ExportMetadata

        read_regular_file(path)
        extra = dict.fromkeys((MARK, *ExportMetadata.__dataclass_fields__), "")
        if not zipfile.is_zipfile(path):
            raise _refuse(path, "torch.export", "it is no archive")
        try:
            self._module = torch.export.load(path, extra_files=extra).module()
        except (RuntimeError, ValueError, KeyError, json.JSONDecodeError) as error:
            raise _refuse(path, "torch.export", error) from None
        self.metadata = {name: value for name, value in extra.items() if value}

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Images float32 [B, 3, H, W] -> the file's outputs, in order."""
        return [output.numpy() for output in self._module(torch.from_numpy(images))]


def _refuse(path: Path, runtime: str, error: object) -> UserError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return UserError(f"{path}: {runtime} cannot load it: {reason}; export the model again")
