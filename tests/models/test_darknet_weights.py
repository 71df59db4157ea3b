import struct

import numpy as np
import pytest
import torch

from detector.build import build_network, default_num_classes
from detector.config import Config, ModelConfig
from detector.errors import UserError
from detector.models import VARIANTS, Header, list_layers, load_darknet, save_darknet
from detector.weights.darknet import DarknetOptions, read_darknet
from tests.models.networks import randomize_norms

PAIRS = [(arch, order) for arch, row in VARIANTS.items() for order in row.orders]


def fresh(arch, classes=None):
    config = ModelConfig(arch=arch)
    return build_network(config, classes or default_num_classes(config)).eval()


def raw(model, x):
    with torch.no_grad():
        output = model(x)
    return [output] if isinstance(output, torch.Tensor) else output


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random -s in both orders: {order: path}, and the model."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = randomize_norms(fresh("yolov4-pacsp-s"))
    paths = {order: folder / f"{order}.weights" for order in ("pacsp", "csp")}
    for order, path in paths.items():
        save_darknet(model, path, order=order, header=Header(seen=12345))
    return paths, model


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize(("arch", "order"), PAIRS)
def test_import_then_export_gives_the_same_bytes(arch, order, tmp_path):
    model = randomize_norms(fresh(arch))
    first, second = tmp_path / "first.weights", tmp_path / "second.weights"
    save_darknet(model, first, order=order, header=Header(0, 2, 5, 32_013_312))
    copy = fresh(arch)
    got = load_darknet(copy, first)
    assert (got.order, got.convolutions) == (order, got.total)
    save_darknet(copy, second, order=got.order, header=got.header)
    assert first.read_bytes() == second.read_bytes()
    x = torch.rand(1, 3, 64, 64)
    for a, b in zip(raw(model, x), raw(copy, x), strict=True):
        assert torch.equal(a, b)


def test_both_orders_hold_the_same_network(small):
    paths, model = small
    assert paths["pacsp"].read_bytes() != paths["csp"].read_bytes()
    assert paths["pacsp"].stat().st_size == paths["csp"].stat().st_size
    for order, path in paths.items():
        copy = fresh("yolov4-pacsp-s")
        assert load_darknet(copy, path).order == order
        for name, tensor in copy.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name


def test_the_first_numbers_are_the_first_convolution(small):
    paths, model = small
    numbers = np.fromfile(paths["csp"], "<f4", offset=20)
    stem = model.backbone.stem
    own = [stem.norm.bias, stem.norm.weight, stem.norm.running_mean, stem.norm.running_var]
    for position, tensor in enumerate(own):
        part = numbers[32 * position : 32 * (position + 1)]
        assert np.array_equal(part, tensor.detach().numpy())
    weight = stem.conv.weight.detach().numpy().ravel()
    assert np.array_equal(numbers[128 : 128 + len(weight)], weight)


def test_the_wrong_order_is_refused(small):
    paths, _ = small
    with pytest.raises(UserError, match=r"csp: [\d,]+ of 10,272 running variances are negative"):
        load_darknet(fresh("yolov4-pacsp-s"), paths["pacsp"], order="csp")
    with pytest.raises(UserError, match="this network has no order 'darknet'"):
        load_darknet(fresh("yolov4-pacsp-s"), paths["pacsp"], order="darknet")


def damaged(path, tmp_path, change):
    copy = tmp_path / path.name
    copy.write_bytes(change(path.read_bytes()))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b[:-4],
            "truncated, or of another network: 33,164,676 bytes",
        ),
        (
            lambda b: b[:-1],
            "truncated, or of another network: 33,164,679 bytes",
        ),
        (lambda b: b + b"\0\0\0\0", "too long: 33,164,684 bytes, expected 33,164,680"),
        (lambda b: b[:10], "not a darknet weights file"),
        (lambda b: b"", "not a darknet weights file"),
        (lambda b: b"PK\3\4" + b[4:], "not a darknet weights file"),
        (lambda b: b[:20] + b[24:] + b[20:24], "weights of another network, or a damaged file"),
    ],
)
def test_damage_is_named(small, tmp_path, change, message):
    path = damaged(small[0]["csp"], tmp_path, change)
    model = fresh("yolov4-pacsp-s")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_darknet(model, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "all of it or nothing"


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_darknet(fresh("yolov4-pacsp-s"), tmp_path / "none.weights")


@pytest.mark.parametrize(
    ("header", "size"),
    [(Header(0, 2, 5, 2**40), 20), (Header(0, 1, 0, 77), 16), (Header(1, 0, 0, 5), 20)],
)
def test_header_variants(header, size, tmp_path):
    assert len(header.pack()) == size
    model, path = randomize_norms(fresh("yolov4-pacsp-n", 3)), tmp_path / "a.weights"
    save_darknet(model, path, header=header)
    got = load_darknet(fresh("yolov4-pacsp-n", 3), path)
    assert got.header == header
    assert struct.unpack_from("<3i", path.read_bytes()) == (
        header.major,
        header.minor,
        header.revision,
    )


def prefix_of(model, order, count, path, source):
    size = 20 + 4 * sum(layer.size for layer in list_layers(model, order)[:count])
    path.write_bytes(source.read_bytes()[:size])
    return path


@pytest.mark.parametrize("count", [1, 31, 55, 60])
@pytest.mark.parametrize("order", ["pacsp", "csp"])
def test_a_prefix_fills_the_layers_that_it_contains(small, tmp_path, order, count):
    paths, model = small
    path = prefix_of(model, order, count, tmp_path / "yolov4.conv.99", paths[order])
    config = Config(model=ModelConfig(arch="yolov4-pacsp-s"))
    weights = read_darknet(path, config, DarknetOptions())
    own = model.state_dict()
    assert not weights.complete
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights.tensors.items())
    assert sum(name.endswith("conv.weight") for name in weights.tensors) <= count
    assert len(weights.tensors) == 5 * count - 3 * sum(
        layer.norm is None for layer in list_layers(model, order)[:count]
    )


def test_a_prefix_needs_partial_and_ends_with_a_convolution(small, tmp_path):
    paths, model = small
    config = Config(model=ModelConfig(arch="yolov4-pacsp-s"))
    path = prefix_of(model, "csp", 31, tmp_path / "a.weights", paths["csp"])
    with pytest.raises(UserError, match="truncated, or weights of another network"):
        read_darknet(path, config, DarknetOptions())
    assert not read_darknet(path, config, DarknetOptions(partial=True)).complete
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"ends [\d,]+ numbers into convolution 30"):
        read_darknet(path, config, DarknetOptions(partial=True))


def test_the_number_of_classes_is_derived_from_the_file_size(tmp_path):
    path = tmp_path / "mine.weights"
    for arch in ("yolov4-pacsp-n", "yolov4-tiny"):
        save_darknet(randomize_norms(fresh(arch, 7)), path)
        weights = read_darknet(path, Config(model=ModelConfig(arch=arch)), DarknetOptions())
        assert weights.names == tuple(f"class_{n}" for n in range(7))


def test_the_size_of_another_network_is_recognised(small):
    config = Config(model=ModelConfig(arch="yolov4-tiny"))
    with pytest.raises(UserError, match="probably yolov4-pacsp-s: the file has 33,164,680 bytes"):
        read_darknet(small[0]["csp"], config, DarknetOptions())


def test_learned_activations_cannot_be_saved_to_a_file(tmp_path):
    model = build_network(ModelConfig(arch="yolov4-pacsp-n", activation="srelu"), 2)
    with pytest.raises(
        UserError, match=r"not written: the activations of this network have [\d,]+ learned"
    ):
        save_darknet(model, tmp_path / "a.weights")
    assert list(tmp_path.iterdir()) == []
