"""Exported files compute what the network computes; each format and each change of the graph."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch

from detector import Detector
from detector.errors import UserError
from detector.export import (
    ExportedModel,
    ExportMetadata,
    ExportOptions,
    InferenceModel,
    onnx_graph,
    open_exported,
    quantize_onnx,
    write_exported,
)
from detector.export.quantize import find_decoding
from detector.postprocess import suppress
from detector.weights.load import load_model, read_weights
from tests.export.small_network import CLASSES, describe, make_model

CONF = 0.05


@pytest.fixture
def images():
    return torch.rand(3, 3, 96, 64)


def save_as(graph, path, metadata):
    onnx_graph.save_onnx(onnx_graph.set_metadata(graph, metadata.to_strings()), str(path))
    return open_exported(path)


def assert_equal_candidates(actual, expected, *, score=1e-5, box=1e-3):
    assert len(expected.scores) > 100
    assert torch.equal(actual.image, expected.image)
    assert torch.equal(actual.labels, expected.labels)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=score)
    torch.testing.assert_close(actual.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=box)


def sort_rows(rows):
    """By label, then by x."""
    return rows[(rows[:, 0] * 1000 + rows[:, 1]).argsort()]


@torch.inference_mode()
def test_onnx_gives_the_candidates_of_the_network(model, onnx_file):
    exported = open_exported(onnx_file)
    for shape in ((3, 3, 96, 64), (1, 3, 64, 64), (2, 3, 32, 128)):
        images = torch.rand(*shape)
        expected = model.find_candidates(model(images), -1.0)
        assert_equal_candidates(exported.find_candidates(exported(images), -1.0), expected)
        above = exported.find_candidates(exported(images), 0.5)
        assert len(above.scores) == int((expected.scores > 0.5).sum())


def test_the_graph_holds_onnx_operators_alone_and_no_paths(onnx_file):
    graph = onnx_graph.load_onnx(str(onnx_file))
    assert {node.domain for node in graph.graph.node} == {""}
    assert [entry.domain for entry in graph.opset_import] == [""]
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("Mish") == 2
    assert "BatchNormalization" not in kinds
    assert b".py" not in onnx_file.read_bytes()


def test_metadata_survive(onnx_file):
    metadata = open_exported(onnx_file).metadata
    assert metadata == describe()
    assert ExportMetadata.from_strings(metadata.to_strings(), "x") == metadata


@torch.inference_mode()
def test_composed_mish(model, onnx_file, images, tmp_path):
    graph = onnx_graph.compose_mish(onnx_graph.load_onnx(str(onnx_file)))
    kinds = {node.op_type for node in graph.graph.node}
    assert "Mish" not in kinds
    assert {"Softplus", "Tanh"} <= kinds
    exported = save_as(graph, tmp_path / "a.onnx", describe())
    expected = model.find_candidates(model(images), -1.0)
    assert_equal_candidates(exported.find_candidates(exported(images), -1.0), expected)


@torch.inference_mode()
@pytest.mark.parametrize("max_detections", [20, 500])
def test_nms_inside_is_our_suppression(model, onnx_file, images, tmp_path, max_detections):
    """With fewer and more detections than the limit."""
    settings = {"nms_iou": 0.65, "max_detections": max_detections}
    graph = onnx_graph.append_nms(onnx_graph.load_onnx(str(onnx_file)), conf=CONF, **settings)
    exported = save_as(graph, tmp_path / "a.onnx", describe(nms=True, **settings))
    candidates = model.find_candidates(model(images), CONF)
    boxes, scores, labels = outputs = exported(images)
    assert boxes.shape == (3, max_detections, 4)
    assert labels.dtype == torch.int64
    for number, expected in enumerate(suppress(candidates, 3, **settings)):
        count = len(expected.scores)
        assert 0 < count <= max_detections
        torch.testing.assert_close(scores[number, :count], expected.scores)
        actual = torch.column_stack([labels[number], boxes[number]])[:count]
        wanted = torch.column_stack([expected.labels, expected.boxes_xyxy])
        torch.testing.assert_close(sort_rows(actual), sort_rows(wanted))  # near ties may swap
        assert (scores[number, count:] == 0).all()
        assert (labels[number, count:] == -1).all()
    # suppression of the suppressed changes nothing
    again = suppress(exported.find_candidates(outputs, CONF), 3, **settings)
    assert [len(each.scores) for each in again] == (scores > 0).sum(1).tolist()


@torch.inference_mode()
def test_nms_without_any_candidate(onnx_file, images, tmp_path):
    graph = onnx_graph.load_onnx(str(onnx_file))
    settings = {"conf": 0.999999, "nms_iou": 0.65, "max_detections": 7}
    graph = onnx_graph.append_nms(graph, **settings)
    exported = save_as(graph, tmp_path / "a.onnx", describe(nms=True, **settings))
    boxes, scores, labels = exported(images)
    assert boxes.shape == (3, 7, 4)
    assert not scores.any()
    assert (labels == -1).all()
    assert not len(exported.find_candidates([boxes, scores, labels], 0.0).scores)


@torch.inference_mode()
def test_int8_quantizes_all_but_the_last_convolution(model, onnx_file, images, tmp_path):
    graph = onnx_graph.load_onnx(str(onnx_file))
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    decoding = find_decoding(graph.graph.node)
    assert set(convolutions) & set(decoding) == {convolutions[-1]}
    assert {node.name for node in graph.graph.node if node.op_type == "Sigmoid"} <= set(decoding)
    quantize_onnx(onnx_file, tmp_path / "a.onnx", [images.numpy()])
    weights = {
        each.name: each.data_type
        for each in onnx_graph.load_onnx(str(tmp_path / "a.onnx")).graph.initializer
    }
    int8 = [
        name
        for name, kind in weights.items()
        if kind == onnx.TensorProto.INT8 and "weight_quant" in name
    ]
    assert len(int8) == len(convolutions) - 1
    exported = save_as(
        onnx_graph.load_onnx(str(tmp_path / "a.onnx")), tmp_path / "b.onnx", describe()
    )
    scores = exported(images)[1]
    expected = InferenceModel(model)(images)[1]
    assert (scores - expected).abs().mean() < 0.02


@pytest.mark.slow
@torch.inference_mode()
def test_openvino_in_fp16_with_nms_and_a_fixed_shape(model, images, tmp_path):
    pytest.importorskip("openvino")
    metadata = describe(shape=(2, 96, 64), precision="fp16", nms=True)
    files = write_exported(model, tmp_path / "a.xml", metadata, ExportOptions("openvino"))
    assert sorted(tmp_path.iterdir()) == sorted(files)
    exported = open_exported(tmp_path / "a.xml")
    assert exported.metadata == metadata
    assert (tmp_path / "a.bin").stat().st_size < 3 * sum(p.numel() for p in model.parameters())
    outputs = exported(images)  # three images, two at a time
    candidates = model.find_candidates(model(images), CONF)
    for number, expected in enumerate(suppress(candidates, 3, nms_iou=0.65, max_detections=20)):
        torch.testing.assert_close(outputs[1][number], expected.scores, rtol=0, atol=5e-3)


@torch.inference_mode()
def test_torch_export(model, images, tmp_path):
    write_exported(model, tmp_path / "a.pt2", describe(), ExportOptions("torch_export"))
    exported = open_exported(tmp_path / "a.pt2")
    assert exported.metadata == describe()
    expected = model.find_candidates(model(images), -1.0)
    assert_equal_candidates(exported.find_candidates(exported(images), -1.0), expected)


class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else x * 2


@pytest.mark.parametrize("file_format", ["onnx", "torch_export"])
def test_a_module_that_cannot_be_traced_is_named(tmp_path, file_format):
    network = make_model()
    network.layers[0].act = Branch()
    suffix = {"onnx": ".onnx", "torch_export": ".pt2"}[file_format]
    metadata = describe(shape=(1, 64, 64))
    with pytest.raises(
        UserError, match="torch cannot export the network: Could not guard"
    ) as error:
        write_exported(network, tmp_path / f"a{suffix}", metadata, ExportOptions(file_format))
    assert "\n" not in str(error.value)


class Fixed:
    """A runtime that returns given outputs."""

    def __init__(self, *outputs):
        self.outputs, self.metadata = outputs, {}

    def run(self, images):
        return [output[: len(images)] for output in self.outputs]


def test_sizes_and_outputs_are_checked():
    good = np.zeros((2, 5, 4), np.float32), np.zeros((2, 5, CLASSES), np.float32)
    fixed = ExportedModel(Fixed(*good), describe(shape=(2, 64, 64)), "a.onnx")
    assert fixed(torch.zeros(3, 3, 64, 64))[1].shape == (3, 5, CLASSES)
    with pytest.raises(UserError, match="takes images of 64 x 64 px, not 96 x 64"):
        fixed(torch.zeros(1, 3, 96, 64))
    with pytest.raises(UserError, match="expected multiples of 8"):
        ExportedModel(Fixed(*good), describe(), "a.onnx")(torch.zeros(1, 3, 60, 64))
    others = good[0], np.zeros((2, 5, 3), np.float32)
    with pytest.raises(UserError, match="scores of 3 classes, but its metadata name 10"):
        ExportedModel(Fixed(*others), describe(), "a.onnx")(torch.zeros(2, 3, 64, 64))
    with pytest.raises(UserError, match="3 outputs that do not match"):
        ExportedModel(Fixed(*good, good[0]), describe(), "a.onnx")(torch.zeros(2, 3, 64, 64))
    wrong = good[0], good[1][..., 0], np.full((2, 5), 10)
    with pytest.raises(UserError, match="gives class 10, but its metadata name 10 classes"):
        ExportedModel(Fixed(*wrong), describe(nms=True), "a.onnx")(torch.zeros(2, 3, 64, 64))


def test_files_that_are_not_ours(onnx_file, tmp_path):
    other = tmp_path / "other.onnx"
    graph = onnx_graph.load_onnx(str(onnx_file))
    onnx_graph.save_onnx(onnx_graph.set_metadata(graph, {"names": "[]"}), str(other))
    with pytest.raises(UserError, match=r"other\.onnx: it holds no metadata of this toolkit"):
        open_exported(other)
    values = describe().to_strings()
    for change, message in (
        ({"detector_export": "9"}, "its metadata have version 9, expected 1"),
        ({"names": "["}, "its metadata are damaged"),
        ({"strides": "8"}, "its metadata are damaged"),
    ):
        onnx_graph.save_onnx(onnx_graph.set_metadata(graph, values | change), str(other))
        with pytest.raises(UserError, match=message):
            open_exported(other)
    other.write_bytes(onnx_file.read_bytes()[:1000])
    for suffix in (".onnx", ".xml", ".pt2"):
        copy = tmp_path / f"broken{suffix}"
        shutil.copy(other, copy)
        (tmp_path / "broken.bin").write_bytes(b"")
        if suffix == ".xml":
            pytest.importorskip("openvino")
        with pytest.raises(UserError, match="cannot load it") as error:
            open_exported(copy)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        open_exported(tmp_path / "none.onnx")


def test_detector_takes_an_exported_file(model, onnx_file, checkpoint, rng):
    """The three lines of Python find the same with the file as with the checkpoint; in threads, too."""
    photos = [rng.integers(0, 255, (70, 90, 3), np.uint8) for _ in range(6)]
    settings = {"conf": 0.3, "precision": "fp32", "device": "cpu", "size": 96, "flip": True}
    expected = Detector(checkpoint, **settings)(photos, channels="RGB")
    exported = Detector(onnx_file, **settings)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: exported(photos, channels="RGB", batch_size=4), range(3)))
    for actual in (result for each in results for result in zip(each, expected, strict=True)):
        ours, theirs = actual
        assert len(theirs) > 10
        assert ours.names == theirs.names
        assert torch.equal(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.boxes_xyxy, theirs.boxes_xyxy, rtol=0, atol=0.01)


def test_load_model_opens_exported_files(onnx_file):
    loaded = load_model(onnx_file, ["eval.conf=0.2", "data.size=96"])
    assert isinstance(loaded.model, ExportedModel)
    assert loaded.names == describe().names
    assert (loaded.config.eval.conf, loaded.config.data.size) == (0.2, 96)
    with pytest.raises(UserError, match="the exported file fixes this"):
        load_model(onnx_file, ["model.decoder={size: exp}"])
    with pytest.raises(UserError, match="remove --cfg"):
        load_model(onnx_file, cfg="yolov4-pacsp-n-mish")
    with pytest.raises(UserError, match="an exported file only detects"):
        read_weights(onnx_file)
