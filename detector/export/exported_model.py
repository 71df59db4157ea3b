"""An exported file in the place of a PyTorch detector."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.errors import UserError
from detector.export.metadata import ExportMetadata
from detector.export.runtimes import OnnxRuntime, OpenVINORuntime, Runtime, TorchExportRuntime
from detector.structures import Candidates

# suffix -> the runtime, the package that it needs and the extra that installs it
RUNTIMES: dict[str, tuple[Any, str, str]] = {
    ".onnx": (OnnxRuntime, "onnxruntime", "onnx"),
    ".xml": (OpenVINORuntime, "openvino", "openvino"),
    ".pt2": (TorchExportRuntime, "torch", ""),
}


def is_exported_file(path: Path) -> bool:
    """Whether a file name is that of an exported model: .onnx, .xml or .pt2."""
    return path.suffix.lower() in RUNTIMES


def open_exported(path: Path, threads: int | None = None) -> "ExportedModel":
    """Opens an exported file.

    Args:
        path: an .onnx, an OpenVINO .xml or a .pt2.
        threads: of the computation; as many as torch uses by default.

    Raises:
        UserError: missing, damaged, of another model, or its runtime is not installed.
    """
    runtime, package, extra = RUNTIMES[path.suffix.lower()]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{path}: needs {package}: pip install 'detector[{extra}]'")
    opened = runtime(path, torch.get_num_threads() if threads is None else threads)
    metadata = ExportMetadata.from_strings(opened.metadata, str(path))
    return ExportedModel(opened, metadata, str(path))


class ExportedModel(nn.Module):
    """An exported file with the interface that `detector.evaluation.predict` needs.

    Attributes:
        metadata: of the file.
        source: its name, for messages.
        strides: pixels per cell, by level.
    """

    def __init__(self, runtime: Runtime, metadata: ExportMetadata, source: str) -> None:
        super().__init__()
        self.runtime, self.metadata, self.source = runtime, metadata, source
        self.strides = metadata.strides

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images float32 [B, 3, H, W] in [0, 1] -> the file's outputs, on the device of `images`.

        A file with a fixed batch gets the images in parts, the last one padded.

        Raises:
            UserError: the file has a fixed size, and it is another one; or it has other outputs than
                its metadata say.
        """
        pixels = images.detach().float().contiguous().cpu().numpy()
        self._require_size(*pixels.shape[2:])
        batch = len(pixels) if self.metadata.shape is None else self.metadata.shape[0]
        parts = [
            self.runtime.run(_pad_batch(pixels[start : start + batch], batch))
            for start in range(0, len(pixels), batch)
        ]
        outputs = [np.concatenate(each)[: len(pixels)] for each in zip(*parts, strict=True)]
        self._require_outputs(outputs)
        return [torch.from_numpy(output).to(images.device) for output in outputs]

    def find_candidates(self, outputs: list[Tensor], conf: float) -> Candidates:
        """Every (box, class) whose score is above `conf`, image by image.

        Of a file with suppression inside: its detections; another suppression with the same IoU
        changes nothing.
        """
        if self.metadata.nms:
            boxes, scores, labels = outputs
            image, row = (scores > max(conf, 0.0)).nonzero(as_tuple=True)
            return Candidates(image, boxes[image, row], scores[image, row], labels[image, row])
        boxes, scores = outputs
        # first the boxes, then their classes: 4 times as fast at 640 px and 80 classes
        image, row = (scores.amax(2) > conf).nonzero(as_tuple=True)
        likely = scores[image, row]  # [k, classes]
        pair, label = (likely > conf).nonzero(as_tuple=True)
        image, row = image[pair], row[pair]
        return Candidates(image, boxes[image, row], likely[pair, label], label)

    def _require_size(self, height: int, width: int) -> None:
        shape, step = self.metadata.shape, max(self.strides)
        if shape is not None and (height, width) != shape[1:]:
            raise UserError(
                f"{self.source}: takes images of {shape[1]} x {shape[2]} px, not {height} x {width}; "
                f"give that size (with eval.protocol=letterbox), or export without --fixed"
            )
        if height % step or width % step:
            raise UserError(
                f"{self.source}: images of {height} x {width} px; expected multiples of {step}"
            )

    def _require_outputs(self, outputs: list[np.ndarray]) -> None:
        """Checks the outputs against the metadata, which somebody may have copied."""
        count = len(self.metadata.names)
        if len(outputs) != (3 if self.metadata.nms else 2) or outputs[0].shape[-1] != 4:
            raise UserError(
                f"{self.source}: has {len(outputs)} outputs that do not match its metadata; "
                f"export the model again"
            )
        if not self.metadata.nms and outputs[1].shape[-1] != count:
            raise UserError(
                f"{self.source}: gives scores of {outputs[1].shape[-1]} classes, but its metadata "
                f"name {count}; export the model again"
            )
        if self.metadata.nms and outputs[2].size and outputs[2].max() >= count:
            raise UserError(
                f"{self.source}: gives class {outputs[2].max()}, but its metadata name {count} classes; "
                f"export the model again"
            )


def _pad_batch(pixels: np.ndarray, batch: int) -> np.ndarray:
    missing = batch - len(pixels)
    return np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else pixels
