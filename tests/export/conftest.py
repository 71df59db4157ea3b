"""A small network, exported once."""

import pytest

from detector.export import ExportOptions, write_exported
from tests.export.small_network import describe, make_config, make_model, save_small

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def onnx_file(model, tmp_path_factory):
    """Exported to ONNX with a dynamic batch and size, without suppression; not to be changed."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    write_exported(model, path, describe(), ExportOptions("onnx"))
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The network as a checkpoint."""
    return save_small(tmp_path_factory.mktemp("checkpoint") / "best.pt", make_config())
