"""Weights of both kinds: settings saved with them, assumed and reported; and what is transferred."""

import itertools
import random
import shutil
import struct

import pytest
import torch

from detector.build import build_loss, build_network
from detector.config import Config, DecoderConfig, ModelConfig, replace_values
from detector.errors import UserError
from detector.models import Header, list_layers, save_darknet
from detector.weights import darknet, published
from detector.weights.darknet import DarknetOptions, read_config, read_darknet
from detector.weights.load import export_darknet, load_model, read_weights, save_weights
from detector.weights.transfer import adopt_settings, transfer
from tests.hostile import damage_bytes
from tests.models import darknet_texts as texts
from tests.models.networks import randomize_norms

S = Config(model=ModelConfig(arch="yolov4-pacsp-s"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random -s of 80 classes in both orders."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    model = randomize_norms(build_network(S.model, 80))
    for order in ("pacsp", "csp"):
        save_darknet(model, folder / order, order=order, header=Header(0, 2, 5, 999))
    return {order: folder / order for order in ("pacsp", "csp")}


def named(path, folder, name):
    target = folder / name
    shutil.copy(path, target)
    return target


@pytest.mark.parametrize(
    ("order", "name", "decoder", "eps", "note"),
    [
        # current files of PyTorch_YOLOv4: known, nothing open
        ("csp", "yolov4-pacsp-s.weights", ("sigmoid", (2.0,)), 1e-4, "as PyTorch_YOLOv4 published"),
        # the archived ones: of 2021 or of 2020, which only their sha256 would tell
        ("pacsp", "yolov4-pacsp-s.weights", ("sigmoid", (2.0, 2.0, 2.0)), 1e-4, "--decoder exp"),
        ("csp", "mine.weights", ("sigmoid", (2.0, 2.0, 2.0)), 1e-5, "--decoder exp"),
    ],
)
def test_decoder_and_eps_follow_the_file(small, tmp_path, order, name, decoder, eps, note):
    path = named(small[order], tmp_path, name)
    weights = read_darknet(path, S, DarknetOptions())
    model = weights.config.model
    assert (model.decoder.size, model.decoder.scale_x_y) == decoder
    assert model.bn_eps == eps
    (line,) = [note for note in weights.notes if note.startswith("decoder")]
    assert note in line
    assert weights.order == order


def test_the_users_settings_take_precedence(small, tmp_path):
    path = named(small["csp"], tmp_path, "yolov4-pacsp-s.weights")
    options = DarknetOptions(decoder="exp", bn_eps=1e-3)
    model = read_darknet(path, S, options).config.model
    assert model.decoder == DecoderConfig(size="exp", scale_x_y=(1.0,))
    assert model.bn_eps == 1e-3
    own = ModelConfig(arch="yolov4-pacsp-s", decoder=DecoderConfig(size="exp", scale_x_y=(1.3,)))
    kept = read_darknet(path, Config(model=own), DarknetOptions()).config.model
    assert kept.decoder == own.decoder


def test_darknets_yolov4_is_assumed_if_name_and_size_are_ambiguous(tmp_path, monkeypatch):
    """Name and size of yolov4.weights are darknet's and PyTorch_YOLOv4's: a smaller network stands in."""
    tiny = ModelConfig(arch="yolov4-tiny", activation="leaky_relu")
    path = tmp_path / "yolov4.weights"
    save_darknet(randomize_norms(build_network(tiny, 80)), path)
    entries = [
        replace_values(entry, {"size": path.stat().st_size}) for entry in published.list_published()
    ]
    monkeypatch.setattr(published, "list_published", lambda: entries)
    weights = read_darknet(path, Config(model=tiny), DarknetOptions())
    assert weights.config.model.decoder == DecoderConfig(size="exp", scale_x_y=(1.05, 1.05))
    assert weights.config.model.bn_eps == 1e-5
    assert "assumed, since darknet's cfg" in weights.notes[1]


def test_the_decoder_reaches_model_and_loss(small, tmp_path):
    path = named(small["csp"], tmp_path, "mine.weights")
    loaded = load_model(path, cfg="yolov4-pacsp-s-mish", options=DarknetOptions(decoder="exp"))
    assert loaded.model.decoder.size == "exp"
    assert build_loss(loaded.config, loaded.model, 80).decoder.reach(0) == 0
    assert {m.eps for m in loaded.model.modules() if hasattr(m, "eps")} == {1e-5}


def test_conversion_round_trips(small, tmp_path):
    for order, path in small.items():
        source = named(path, tmp_path, f"{order}.weights")
        weights = read_darknet(source, S, DarknetOptions())
        save_weights(weights, tmp_path / f"{order}.pt")
        again = read_weights(tmp_path / f"{order}.pt")
        assert (again.header, again.order) == (Header(0, 2, 5, 999), order)
        assert export_darknet(again, tmp_path / "back.weights") == order
        assert (tmp_path / "back.weights").read_bytes() == path.read_bytes()
        other = "csp" if order == "pacsp" else "pacsp"
        export_darknet(again, tmp_path / "other.weights", order=other)
        assert (tmp_path / "other.weights").read_bytes() == small[other].read_bytes()
        loaded = load_model(tmp_path / f"{order}.pt")
        assert loaded.config.model.decoder == weights.config.model.decoder


def test_the_user_can_set_the_decoder_of_a_checkpoint(small, tmp_path):
    path = named(small["csp"], tmp_path, "a.weights")
    save_weights(read_darknet(path, S, DarknetOptions()), tmp_path / "a.pt")
    model = load_model(tmp_path / "a.pt", options=DarknetOptions(decoder="exp")).model
    assert model.decoder.size == "exp"
    words = ["model.decoder={size: exp, scale_x_y: [1.1]}"]
    assert load_model(tmp_path / "a.pt", words).model.decoder.scale(2) == 1.1
    with pytest.raises(UserError, match="the checkpoint fixes this"):
        load_model(tmp_path / "a.pt", ["model.activation=relu"])


def test_class_names(small, tmp_path):
    path = named(small["csp"], tmp_path, "a.weights")
    assert read_darknet(path, S, DarknetOptions()).names[:2] == ("person", "bicycle")
    names = tmp_path / "my.names"
    names.write_text("\n".join(f"thing {n}" for n in range(80)) + "\n")
    assert read_darknet(path, S, DarknetOptions(names=names)).names[79] == "thing 79"
    names.write_text("\n".join(f"thing {n}" for n in range(80)) + "\n", encoding="utf-8-sig")
    assert read_darknet(path, S, DarknetOptions(names=names)).names[0] == "thing 0"
    names.write_bytes("größe\n".encode("latin-1") * 80)
    with pytest.raises(UserError, match=r"my\.names: not UTF-8 text; expected one class name per"):
        read_darknet(path, S, DarknetOptions(names=names))
    names.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="2 names, but the weights have 80 classes"):
        read_darknet(path, S, DarknetOptions(names=names))


def test_transfer_to_other_classes(small, tmp_path):
    weights = read_darknet(named(small["csp"], tmp_path, "a.weights"), S, DarknetOptions())
    config = adopt_settings(S, weights, 10)
    assert config.model.bn_eps == 1e-5
    assert config.model.decoder is None, "a fresh head is trained with the config's decoder"
    model = build_network(config.model, 10)
    table = transfer(model, weights, 10)
    rows = {line.split()[0]: line for line in table.splitlines()[2:]}
    assert rows["backbone"].rstrip().endswith("-")
    assert "6 for 80 classes, here 10" in rows["head"]
    own = model.state_dict()
    same = [n for n, t in weights.tensors.items() if t.shape == own[n].shape]
    assert all(torch.equal(own[n], weights.tensors[n]) for n in same)


def test_transfer_to_the_same_classes_includes_head_and_decoder(small, tmp_path):
    path = named(small["csp"], tmp_path, "a.weights")
    weights = read_darknet(path, S, DarknetOptions(decoder="exp"))
    config = adopt_settings(S, weights, 80)
    assert config.model.decoder == DecoderConfig(size="exp", scale_x_y=(1.0,))
    assert config.model.anchors == "published", "a trained head keeps its anchors"
    chosen = ModelConfig(
        arch="yolov4-pacsp-s", bn_eps=1e-3, decoder=DecoderConfig(), anchors=(((1.0, 2.0),),) * 3
    )
    assert adopt_settings(Config(model=chosen), weights, 80).model == chosen
    as_published = replace_values(S, {"recipe": "published"})
    assert adopt_settings(as_published, weights, 80).model.anchors is None
    model = build_network(config.model, 80)
    table = transfer(model, weights, 80)
    assert all(line.rstrip().endswith("-") for line in table.splitlines()[2:])


def test_transfer_of_a_prefix_and_of_another_network(small, tmp_path):
    prefix = tmp_path / "yolov4-pacsp-s.conv.50"
    whole = small["csp"].read_bytes()
    sizes, size = [], 20
    for layer in list_layers(build_network(S.model, 80), "csp"):
        size += 4 * layer.size
        sizes.append(size)
    prefix.write_bytes(whole[: sizes[20]])
    weights = read_darknet(prefix, S, DarknetOptions())
    table = transfer(build_network(S.model, 3), weights, 3)
    assert "not in the file" in table
    with pytest.raises(UserError, match="holds only the first layers of the network"):
        load_model(prefix, cfg="yolov4-pacsp-s-mish")
    with pytest.raises(UserError, match=r"none of its weights fit this network \(of another shape"):
        transfer(build_network(ModelConfig(arch="yolov4-pacsp-n"), 3), weights, 3)


def test_a_darknet_file_needs_to_know_its_network(small):
    with pytest.raises(UserError, match="no such file"):
        load_model(small["csp"].with_name("none.weights"), cfg="yolov4-pacsp-s-mish")
    with pytest.raises(UserError, match="does not say which network it is; give --cfg"):
        load_model(small["csp"].with_name("a.weights"))


def test_a_users_own_cfg_and_weights(tmp_path):
    cfg, path = tmp_path / "my.cfg", tmp_path / "my.weights"
    cfg.write_text(texts.everything(new_coords=1))
    config = read_config(str(cfg))
    model = randomize_norms(build_network(config.model, 2))
    save_darknet(model, path)
    loaded = load_model(path, cfg=str(cfg))
    assert loaded.names == ("class_0", "class_1")
    assert loaded.model.decoder.size == "sigmoid"
    assert loaded.config.model.bn_eps == 1e-5
    save_weights(read_weights(path, config), tmp_path / "my.pt")
    cfg.unlink()
    again = load_model(tmp_path / "my.pt")  # the checkpoint holds the cfg's text
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(model(x), again.model.eval()(x), strict=True):
            assert torch.equal(a, b)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="truncated, or weights of another network"):
        read_weights(path, config)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A darknet file of a few kB, and the config of its network."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "my.cfg").write_text(texts.everything(new_coords=1))
    config = read_config(str(folder / "my.cfg"))
    save_darknet(randomize_norms(build_network(config.model, 2)), folder / "my.weights")
    return folder / "my.weights", config


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_named(tiny, tmp_path, value):
    source, config = tiny
    path = tmp_path / "my.weights"
    path.write_bytes(source.read_bytes()[:-4] + struct.pack("<f", value))
    with pytest.raises(
        UserError, match=r"my\.weights: 1 of the [\d,]+ numbers of .* are non-finite"
    ):
        read_weights(path, config)
    weights = read_weights(source, config)
    next(iter(weights.tensors.values()))[0] = value
    save_weights(weights, tmp_path / "my.pt")
    with pytest.raises(UserError, match=r"my\.pt: .* are non-finite: the file is damaged, or its"):
        read_weights(tmp_path / "my.pt")


def test_a_damaged_darknet_file_is_one_line(tiny, tmp_path, monkeypatch):
    """Headers of every version, cuts, extra and changed bytes: read, or named; no claimed size counts."""
    monkeypatch.setattr(darknet, "VARIANTS", {})  # which network else it may be of is slow to say
    source, config = tiny
    whole, path, draw = source.read_bytes(), tmp_path / "my.weights", random.Random(0)
    headers = [(0, 1, 0), (999, 999, -(2**31)), (-1, 2, 5), (2**31 - 1, 0, 0), (0, 2, 2**31 - 1)]
    faults = [struct.pack("<3i", *header) + whole[12:] for header in headers]
    faults += [whole[:12] + struct.pack("<q", seen) + whole[20:] for seen in (-1, -(2**63))]
    faults += [whole[:cut] for cut in (0, 11, 15, 20, 21, len(whole) - 1)]
    faults += [whole + bytes(4), bytes(len(whole)), b"\xff" * len(whole)]
    faults += [damage_bytes(whole, draw) for _ in range(12)]
    messages = list[str]()
    for partial, content in itertools.product((False, True), faults):
        path.write_bytes(content)
        try:
            read_weights(path, config, DarknetOptions(partial=partial))
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert [each for each in messages if not each.startswith(f"{path}: ") or "\n" in each] == []
