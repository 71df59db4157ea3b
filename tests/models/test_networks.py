"""Every network of the table: counts, convolutions one by one, shapes, activations, fusing, export."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.build import build_network
from detector.config import ModelConfig, PartActivations, load_config, replace_values
from detector.models import ADOPTED, VARIANTS, file_size, list_layers, measure_stages
from detector.nn import ACTIVATIONS, ConvNormAct, fuse_batch_norms
from tests.models.networks import build_on_meta, randomize_norms

LAYERS = Path(__file__).parent / "layers"
# parameters, GFLOPs at a side, bytes of a weight file: with 80 classes, the classifier with 1000
PUBLISHED = {
    "yolov4-pacsp-s": (8_270_621, 20.89, 640, 33_164_680),
    "yolov4-pacsp": (52_921_437, 120.24, 640, 211_944_840),
    "yolov4-pacsp-x": (99_751_053, 221.88, 640, 399_388_168),
    "yolov4": (64_363_101, 142.26, 640, 257_717_640),
    "yolov4-tiny": (6_056_606, 6.91, 416, 24_251_276),
    "csdarknet53-yolov3": (47_981_405, None, 0, None),
    "csdarknet53": (27_642_184, 13.07, 256, 110_710_068),
}
NOT_PUBLISHED = {"yolov4-pacsp-n", "cnn6", "mlp"}
# checked in test_small_nets.py, test_csp_backbones.py, test_spinenet.py, test_capsnet.py
ELSEWHERE = {
    *("resnet20", "wrn10_2", "simplenet", "capsnet"),
    *("csp_resnet50", "csp_resnext50", "peleenet", "spinenet49"),
}
PACSP_LARGER = ("yolov4-pacsp-s", "yolov4-pacsp", "yolov4-pacsp-x")
OWN = [name for name, variant in VARIANTS.items() if variant.backbone is not None]  # of our blocks
DETECTORS = [name for name, variant in VARIANTS.items() if variant.neck is not None]


@pytest.mark.parametrize("arch", PUBLISHED)
def test_parameters_flops_and_bytes_are_the_published_ones(arch):
    parameters, gflops, side, size = PUBLISHED[arch]
    model = build_on_meta(arch)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if size:
        assert file_size(model) == size
        stages = measure_stages(model, side, side)
        assert sum(stage.parameters for stage in stages) == parameters
        assert sum(stage.flops for stage in stages) / 1e9 == pytest.approx(gflops, abs=0.006)


def test_every_network_is_checked():
    assert set(PUBLISHED) | NOT_PUBLISHED | ELSEWHERE | set(ADOPTED) == set(VARIANTS)


@pytest.mark.parametrize("path", sorted(LAYERS.iterdir()), ids=lambda path: path.stem)
def test_convolutions_one_by_one(path):
    arch, order = path.name.removesuffix(".tsv").rsplit(".", 1)
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    settings = {}
    if arch == "yolov4":
        settings["activation"] = PartActivations(
            backbone="mish", neck="leaky_relu", head="leaky_relu"
        )
    if arch == "yolov4-tiny":
        settings["activation"] = "leaky_relu"
    model = build_on_meta(arch, **settings)
    acts = {m.conv: m.act for m in model.modules() if isinstance(m, ConvNormAct)}
    kinds = {"Mish": "mish", "LeakyReLU": "leaky", "NoneType": "linear"}
    actual = [
        {
            "cin": str(layer.conv.in_channels),
            "cout": str(layer.conv.out_channels),
            "k": str(layer.conv.kernel_size[0]),
            "stride": str(layer.conv.stride[0]),
            "norm": "bn" if layer.norm else "bias",
            "act": kinds[type(acts.get(layer.conv)).__name__],
        }
        for layer in list_layers(model, order)
    ]
    assert actual == rows


@pytest.mark.parametrize("arch", DETECTORS)
def test_shapes_on_square_and_other_images(arch):
    model = build_on_meta(arch, 3)
    for height, width in ((256, 256), (96, 160)):
        raw = model(torch.zeros(2, 3, height, width, device="meta"))
        expected = [(2, 3, height // s, width // s, 8) for s in model.strides]
        assert [tuple(level.shape) for level in raw] == expected


@pytest.mark.parametrize("arch", DETECTORS)
def test_a_forward_pass_is_finite(arch):
    """The published depths and widths: what a wrong initialisation would blow up."""
    with torch.no_grad():
        model = build_network(ModelConfig(arch=arch), 3).eval()
        for level in model(torch.rand(1, 3, 64, 64)):
            assert level.isfinite().all()


def test_the_classifier_classifies():
    model = build_network(ModelConfig(arch="csdarknet53"), 10).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 64, 96)).shape == (2, 10)


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize(
    ("arch", "name"),
    [("yolov4-pacsp-n", name) for name in ACTIVATIONS] + [(arch, "swish") for arch in OWN],
)
def test_any_activation_by_name(arch, name):
    model = build_on_meta(arch, 2, activation=name)
    kinds = {type(m.act) for m in model.modules() if hasattr(m, "act")}
    assert kinds | {nn.Identity} == {type(ACTIVATIONS[name](1)), nn.Identity}


@pytest.mark.parametrize("arch", ["yolov4", "csdarknet53-yolov3", "yolov4-tiny"])
def test_an_activation_for_each_part(arch):
    parts = PartActivations(backbone="mish", neck="leaky_relu", head="relu")
    model = build_on_meta(arch, 2, activation=parts)
    kinds = {
        part: {
            type(m.act).__name__
            for m in getattr(model, part).modules()
            if isinstance(m, ConvNormAct)
        }
        for part in ("backbone", "neck", "head")
    }
    assert kinds == {"backbone": {"Mish"}, "neck": {"LeakyReLU"}, "head": {"ReLU"}}


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("arch", OWN)
def test_fused_batch_norms_change_nothing(arch):
    model = randomize_norms(build_network(ModelConfig(arch=arch), 3))
    fused = fuse_batch_norms(model)
    left = [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == (7 if arch == "wrn10_2" else 0), "pre-activation: before the convolution"
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the model itself stays"
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        one, other = model(x), fused(x)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# the other networks of the pacsp family differ from -n in widths and depths alone
@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=[pytest.mark.slow] if arch in ("yolov4", "yolov4-pacsp-n") else [])
        for arch in (*DETECTORS, "csdarknet53", "cnn6")
        if arch not in PACSP_LARGER
    ],
)
@pytest.mark.filterwarnings("default")  # torch.export's own
def test_torch_export_of_the_forward(arch):
    model = randomize_norms(build_network(ModelConfig(arch=arch), 3))
    x = torch.rand(1, 3, 64, 96)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        for a, b in zip(exported(x), model(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_which_half_of_the_channels_tiny_splits_off():
    config = ModelConfig(arch="yolov4-tiny", activation="relu")
    second = randomize_norms(build_network(config, 2))
    first = build_network(replace_values(config, {"split_half": "first"}), 2).eval()
    first.load_state_dict(second.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = second(x), first(x)
        assert not torch.allclose(a[0], b[0])
        # swap the halves where they are made: then the other convention gives the same
        for stage in (first.backbone.stage1, first.backbone.stage2, first.backbone.stage3):
            _swap_halves(stage)
        _swap_input_of_next(first)
        for one, other in zip(a, first(x), strict=True):
            torch.testing.assert_close(one, other)


def _swap_halves(stage):
    for tensor in (
        stage.entry.conv.weight,
        *(getattr(stage.entry.norm, n) for n in ("weight", "bias", "running_mean", "running_var")),
    ):
        tensor.copy_(torch.cat(tensor.chunk(2)[::-1]))


def _swap_input_of_next(model):
    """The next layer's input begins with the stage's swapped map."""
    for consumer in (model.backbone.stage2.entry, model.backbone.stage3.entry, model.backbone.last):
        weight = consumer.conv.weight
        a, mix = weight.chunk(2, 1)
        weight.copy_(torch.cat([*a.chunk(2, 1)[::-1], mix], 1))


def test_anchors_of_tiny_are_the_odd_published_ones():
    anchors = build_network(ModelConfig(arch="yolov4-tiny"), 2).anchors.tolist()
    assert anchors[0] == [[23, 27], [37, 58], [81, 82]]
    assert anchors[1] == [[81, 82], [135, 169], [344, 319]]


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_its_network(path):
    with torch.device("meta"):
        build_network(load_config(str(path)).model, 2)


@pytest.mark.slow
def test_a_large_forward_of_x_stays_below_4_gib():
    code = (
        "import torch, resource\n"
        "from detector.config import ModelConfig\n"
        "from detector.build import build_network\n"
        "model = build_network(ModelConfig(arch='yolov4-pacsp-x'), 80).eval()\n"
        "with torch.no_grad(): model(torch.zeros(1, 3, 640, 640))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 4 * 2**30
