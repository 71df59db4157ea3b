"""The index of published files agrees with the networks."""

import pytest
import torch

from detector.build import build_network, default_num_classes
from detector.config import load_config
from detector.errors import UserError
from detector.models import file_size, list_layers
from detector.weights.published import find_published, list_published, match_published


@pytest.mark.parametrize("entry", list_published(), ids=lambda entry: entry.name)
def test_an_entry_fits_its_network(entry):
    config = load_config(entry.config).model
    with torch.device("meta"):
        model = build_network(config, default_num_classes(config))
    assert entry.order in model.orders
    levels = len(model.strides)
    assert len(entry.decoder.scale_x_y) in (1, levels)
    if entry.partial:
        sizes, size = set(), 20
        for layer in list_layers(model, entry.order):
            size += 4 * layer.size
            sizes.add(size)
        assert entry.size in sizes, "it ends at the end of a convolution"
    else:
        assert file_size(model) == entry.size
    for result in entry.results:
        assert all(0 < value < 100 for value in result.ap)


def test_names_are_unique_and_addresses_are_files():
    names = [entry.name for entry in list_published()]
    assert len(names) == len(set(names))
    for entry in list_published():
        assert entry.page.startswith("https://")
        assert entry.url is None or entry.url.endswith(f"/{entry.file}")


def test_an_unknown_name():
    with pytest.raises(UserError, match="did you mean yolov4-pacsp-mish"):
        find_published("yolov4-pacsp-mihs")


def test_by_name_and_size(tmp_path):
    path = tmp_path / "yolov4.weights"
    assert match_published(path) == []
    with path.open("wb") as file:
        file.truncate(257_717_640)
    assert [entry.publisher for entry in match_published(path)] == ["darknet", "PyTorch_YOLOv4"]
    assert [
        entry.name for entry in match_published(path.rename(tmp_path / "yolov4-pytorch.weights"))
    ] == ["yolov4-pytorch"]
    path.write_bytes(b"other")
    assert match_published(path) == []
