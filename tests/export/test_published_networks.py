"""The smallest network of the family in each format, and a file in OpenCV, which reads ONNX by itself."""

import cv2
import pytest
import torch

from detector.build import build_model
from detector.config import ModelConfig
from detector.export import ExportOptions, InferenceModel, open_exported, write_exported
from tests.export.small_network import describe
from tests.models.networks import randomize_norms

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomize_norms(build_model(ModelConfig(arch="yolov4-pacsp-n", activation="mish"), 10))


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("file_format", SUFFIXES)
def test_a_network_of_the_family(network, tmp_path, file_format):
    if file_format == "openvino":
        pytest.importorskip("openvino")
    path = tmp_path / f"a{SUFFIXES[file_format]}"
    metadata = describe(strides=network.strides, size=96)
    write_exported(network, path, metadata, ExportOptions(file_format))
    exported = open_exported(path)
    for shape in ((1, 3, 64, 96), (3, 3, 96, 64)):
        images = torch.rand(*shape)
        expected = InferenceModel(network)(images)
        for ours, theirs in zip(exported(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.skipif(not hasattr(cv2, "dnn"), reason="OpenCV without dnn")
def test_opencv_runs_a_file_with_a_fixed_shape(network, tmp_path):
    metadata = describe(strides=network.strides, shape=(1, 64, 96))
    path = tmp_path / "a.onnx"
    write_exported(network, path, metadata, ExportOptions("onnx", mish="composed"))
    images = torch.rand(1, 3, 64, 96)
    net = cv2.dnn.readNetFromONNX(str(path))
    net.setInput(images.numpy())
    outputs = net.forward(["boxes_xyxy", "scores"])
    for ours, theirs in zip(outputs, InferenceModel(network)(images), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-4, atol=1e-3)
