import re

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from detector.build import build_network
from detector.config import ModelConfig
from detector.errors import UserError
from detector.models import DarknetNet, load_darknet, parse_cfg, save_darknet
from detector.nn import BatchNormSettings, activation
from detector.weights.darknet import read_config
from tests.models import darknet_texts as texts
from tests.models.networks import randomize_norms
from tests.slow_inference import decode_all


def build(text, eps=1e-5):
    return DarknetNet(parse_cfg(text, "my.cfg"), activation, BatchNormSettings(eps=eps))


def test_tiny_from_its_cfg_equals_the_table(tmp_path):
    torch.manual_seed(0)
    ours = randomize_norms(
        build_network(ModelConfig(arch="yolov4-tiny", activation="leaky_relu"), 80)
    )
    theirs = build(texts.tiny(), eps=1e-4).eval()
    assert [theirs.strides, theirs.decoder.scale_x_y] == [(16, 32), (1.05, 1.05)]
    assert torch.equal(theirs.anchors, ours.anchors)
    save_darknet(ours, tmp_path / "tiny.weights")
    load_darknet(theirs, tmp_path / "tiny.weights")
    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b)


def test_shapes_levels_and_decoder():
    model = build(texts.everything())
    raw = model(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape) for level in raw] == [(2, 3, 8, 12, 7), (2, 3, 4, 6, 7)]
    assert model.strides == (8, 16)
    assert model.decoder.size == "exp"
    assert model.anchors[0].tolist() == [[10, 14], [23, 27], [37, 58]]
    assert build(texts.everything(new_coords=1)).decoder.size == "sigmoid"


def test_a_route_takes_the_same_part_of_each_map():
    section = texts.route(-1, -2, groups=2, group_id=1)
    text = NET + texts.conv(8) + texts.conv(6) + section + texts.conv(21, act="linear", bn=0)
    layer = build(text + texts.yolo("0,1,2", texts.TINY_SIZES)).layers[2]
    a, b = torch.rand(1, 6, 2, 2), torch.rand(1, 8, 2, 2)
    assert torch.equal(layer(a, b), torch.cat([a[:, 3:], b[:, 4:]], 1))


def test_a_map_may_be_taken_twice():
    sections = "[route]\nlayers=-1,-1\n" + "[shortcut]\nfrom=-1\nactivation=linear\n"
    text = NET + texts.conv(8) + sections + texts.conv(21, act="linear", bn=0)
    raw = build(text + texts.yolo("0,1,2", texts.TINY_SIZES))(torch.rand(1, 3, 32, 32))
    assert raw[0].shape == (1, 3, 32, 32, 7)


def test_it_trains():
    model = build(texts.everything())
    sum(level.sum() for level in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


HAS_READER = hasattr(cv2.dnn, "readNetFromDarknet")


def both_on_an_image(text, folder, names, *, height, width):
    """A random model of the text, its raw maps of a random image, and OpenCV's layers of these names."""
    model = randomize_norms(build(text, eps=1e-6))  # OpenCV divides by sqrt(variance + 1e-6)
    cfg, weights = folder / "my.cfg", folder / "my.weights"
    cfg.write_text(text)
    save_darknet(model, weights)
    other = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    other.setInput(image)
    with torch.no_grad():
        return model, model(torch.from_numpy(image)), other.forward(names)


@pytest.mark.skipif(not HAS_READER, reason="OpenCV 5 has no darknet reader")
@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        pytest.param(texts.everything(), (20, 13), id="everything"),
        pytest.param(texts.tiny(3), (36, 29), id="tiny"),
    ],
)
def test_raw_heads_agree_with_opencv(tmp_path, text, outputs):
    names = [f"conv_{number}" for number in outputs]
    _, ours, theirs = both_on_an_image(text, tmp_path, names, height=64, width=96)
    for mine, expected in zip(ours, theirs, strict=True):
        batch, anchors, height, width, values = mine.shape
        flat = mine.permute(0, 1, 4, 2, 3).reshape(batch, anchors * values, height, width)
        np.testing.assert_allclose(flat.numpy(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not HAS_READER, reason="OpenCV 5 has no darknet reader")
@pytest.mark.parametrize("new_coords", [0, 1])
def test_boxes_agree_with_opencv(tmp_path, new_coords):
    """Its region layer gives centre and size as fractions of the image, and the scores."""
    model, raw, (fine, coarse) = both_on_an_image(
        texts.everything(new_coords), tmp_path, ["yolo_21", "yolo_14"], height=64, width=64
    )
    for level, expected in zip(range(2), (fine, coarse), strict=True):
        boxes, objectness, _ = decode_all(
            raw[level : level + 1],
            model.anchors[level : level + 1],
            model.strides[level : level + 1],
            type(model.decoder)(model.decoder.size, (model.decoder.scale(level),)),
        )
        cells, anchors = raw[level].shape[2:4].numel(), 3
        mine = torch.cat([boxes[0] / 64, objectness[0][:, None]], 1)
        mine = (
            mine.view(anchors, cells, 5).transpose(0, 1).reshape(-1, 5)
        )  # theirs: cell, then anchor
        np.testing.assert_allclose(
            mine.numpy(), expected.reshape(-1, expected.shape[-1])[:, :5], atol=1e-4
        )


NET = "[net]\nwidth=64\nheight=64\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.cfg: not a darknet cfg"),
        ("[convolutional]\nfilters=3\n", "my.cfg: not a darknet cfg"),
        (NET + "filters\n", r"my.cfg:4: expected a \[section\] or key=value"),
        (NET + "[lstm]\nsize=3\n", r"my.cfg:4: \[lstm\]: section not supported"),
        (NET + "[convolutional]\nfilters=3\nbinary=1\n", r"my.cfg:4: .*option binary is not supported"),
        (NET + "[convolutional]\nfilters=x\n", "my.cfg:4: .*filters=x: expected numbers"),
        (NET + "[convolutional]\nfilters=nan\n", "my.cfg:4: .*filters=nan: expected numbers"),
        (NET + "[convolutional]\nfilters=1.5\n", "filters=1.5: expected an integer between 1 "),
        (NET + texts.conv(900000, 99), "filters=900000, size=99 and 3 input channels make .* weights"),
        (NET + texts.conv(8) + "[route]\nlayers=-inf\n", "layers=-inf: expected numbers of at most"),
        (NET + texts.conv(8) + "[route]\nlayers=-0.5\n", "layers=-0.5: expected integers"),
        (NET + texts.conv(8) + "[dropout]\nprobability=2\n", "probability=2: expected at least 0"),
        (NET + texts.conv(21, act="linear", bn=0) + texts.yolo("0,1,2", "0,14, 2,3, 4,5"),
         "anchors=0,14, 2,3, 4,5: expected sizes above 0 px"),
        (NET + "[convolutional]\nfilters=3\nfilters=4\n", "my.cfg:6: duplicate option filters"),
        (NET + texts.conv(8, act="elu"), "my.cfg:4: .*activation=elu is not supported"),
        (NET + texts.conv(8) + "[shortcut]\nfrom=-5\n", "no such layer before layer 1"),
        (NET + texts.conv(8) + texts.conv(16) + "[shortcut]\nfrom=-2\n", "only equal shapes"),
        (NET + texts.conv(8) + texts.conv(8, 3, 2) + texts.route(-1, -2), "different sizes"),
        (NET + texts.conv(9) + texts.route(-1, groups=2, group_id=0), "no such part of groups=2"),
        (NET + texts.conv(8), r"my.cfg:1: \[net\]: no \[yolo\] section follows"),
        (NET + texts.conv(20, act="linear", bn=0) + texts.yolo("0,1,2", texts.TINY_SIZES),
         "need filters=21 in the .convolutional. in line 4, which has 20"),
        (NET + texts.conv(21, act="logistic", bn=0) + texts.yolo("0,1,2", texts.TINY_SIZES),
         "new_coords=0 needs activation=linear"),
        (NET + texts.conv(21, act="linear", bn=0) + texts.yolo("0,1,9", texts.TINY_SIZES),
         "mask=0,1,9 does not fit 6 anchors"),
        (NET + POOL_YOLO if (POOL_YOLO := texts.POOL + texts.yolo("0", "1,2")) else "",
         "must follow a .convolutional. section"),
    ],
)  # fmt: skip
def test_mistakes_name_their_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        build(text)
    assert "\n" not in str(caught.value)


def test_comments_spaces_and_the_old_name_of_net():
    text = texts.everything().replace("[net]", "# a comment\n[network]").replace("=", " = ")
    sections = parse_cfg(re.sub(r"(filters = \d+)", r"\1  ; of it", text), "my.cfg")
    assert sections[0].kind == "net"
    assert build(text).num_classes == 2


def test_a_cfg_as_the_config_of_a_run(tmp_path):
    path = tmp_path / "my.cfg"
    path.write_text(texts.everything().replace("width=64", "width=100"))
    config = read_config(str(path), ["train.epochs=3"])
    assert (config.data.size, config.train.epochs) == (128, 3)
    model = build_network(config.model, 2)
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    assert model.decoder.scale_x_y == (1.1, 1.1)
    with pytest.raises(UserError, match="classes=2, but the data has 5"):
        build_network(config.model, 5)
    with pytest.raises(UserError, match=r"model.activation=relu: .*my.cfg sets this"):
        read_config(str(path), ["model.activation=relu"])
