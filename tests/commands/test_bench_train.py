"""tools/bench_train.py: a step by phases, and the same step computed by torch's layers."""

import copy
import functools
import json

import pytest
import torch

from detector.api import step_benchmark
from detector.api.step_benchmark import PHASES, use_torchs_layers
from detector.api.timm_step import TimmStep
from detector.build import build_model
from detector.config import load_config
from detector.models import VARIANTS, AdoptedClassifier, Variant
from detector.models.adopted import Adopted
from tests.commands.running import SMALL

NET = ("--cfg", "yolov4-pacsp-n-mish")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(load_config("yolov4-pacsp-n-mish").model, 3)


@pytest.mark.parametrize("name", ["torch", "plain"])
def test_torchs_layers_compute_the_same(model, name):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    ours = model.train()(images)
    other = build_model(load_config("yolov4-pacsp-n-mish").model, 3)
    other.load_state_dict(state)
    use_torchs_layers(other, step_benchmark.VARIANTS[name].activate)
    for a, b in zip(ours, other.train()(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert list(other.state_dict()) == list(state)


def test_gradients_are_as_exact_as_those_of_the_plain_layers(model):
    """Rounding grows through the layers: both are 5e-5 off float64; single layers 2e-6."""
    images = torch.rand(4, 3, 128, 128)
    ours, plain = copy.deepcopy(model), copy.deepcopy(model)
    use_torchs_layers(plain, step_benchmark.VARIANTS["plain"].activate)
    exact = copy.deepcopy(plain).double()

    def find_gradient(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        maps = net.train()(images)
        torch.stack([each.sigmoid().mean() for each in maps]).sum().backward()
        return torch.cat([p.grad.double().flatten() for p in net.parameters()])

    ours.to(memory_format=torch.channels_last)
    gradient = find_gradient(ours, images.contiguous(memory_format=torch.channels_last))
    usual, expected = find_gradient(plain, images), find_gradient(exact, images.double())
    assert (gradient - expected).norm() < max(2 * (usual - expected).norm(), 1e-5 * expected.norm())
    assert (gradient - expected).norm() < 2e-4 * expected.norm()


def test_a_step_by_phases(tool, digits_yaml, tmp_path):
    words = [*NET, "--data", digits_yaml, "--size", 64, "--batch", 2, "--steps", 1, "--memory"]
    words += ["--variants", "ours", "plain", "checkpointing", "--json", "out.json", *SMALL[1:]]
    status, out, err = tool("bench_train", *words)
    assert status == 0, err
    (result,) = json.loads((tmp_path / "out.json").read_text())
    ours, plain = (result["variants"][name] for name in ("ours", "plain"))
    assert list(ours["phases_ms"]) == list(PHASES)
    assert sum(ours["phases_ms"].values()) == pytest.approx(ours["ms"])
    assert ours["convolutions_ms"] > 0
    assert ours["busy"] is None
    assert "NativeBatchNorm" not in ours["kept_for_backward"]
    assert {"Mul", "NativeBatchNorm"} <= set(plain["kept_for_backward"])
    assert sum(ours["kept_for_backward"].values()) < sum(plain["kept_for_backward"].values())
    less = result["variants"]["checkpointing"]["kept_for_backward"]["all"]
    assert 0 < less < 0.7 * sum(ours["kept_for_backward"].values())
    assert "ours: " in out
    assert "ms per step, medians of 1" in out


def make_step(data, size, batch_size):
    calls.append((size, batch_size))
    return lambda: calls.append("step")


calls = []


def test_another_toolkits_step(tool, digits_yaml):
    words = [*NET, "--data", digits_yaml, "--size", 64, "--batch", 2, "--steps", 2, *SMALL[1:]]
    words += ["--variants", "ours", "--vs", "tests.commands.test_bench_train:make_step"]
    status, out, err = tool("bench_train", *words)
    assert status == 0, err
    from tests.commands.test_bench_train import calls as seen

    assert seen == [(64, 2), "step", "step", "step"]  # the first warms up
    assert "tests.commands.test_bench_train:make_step" in out


def test_what_cannot_be_timed(tool, digits_yaml):
    status, _, err = tool("bench_train", *NET, "--data", digits_yaml, "--vs", "nothing")
    assert status == 2
    assert "--vs nothing: expected module:function" in err
    if not torch.cuda.is_available():
        assert "torch finds no NVIDIA GPU" in tool("bench_train", "--gpu-table")[2]


def test_a_variant_without_words_is_the_config():
    assert step_benchmark.VARIANTS["ours"] == step_benchmark.Variant()


SMALL_CLASSIFIER = [
    *("--cfg", "cnn6-mish-cls", "--variants", "ours", "--size", 32, "--batch", 2),
    *("data.workers=0", "train.threads=1", "bag=none", "model.activation=relu"),
]


def test_timms_step(tool, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    steps = []
    run = TimmStep.__call__
    monkeypatch.setattr(TimmStep, "__call__", lambda self: (steps.append(self), run(self)))
    row = Variant(
        network=functools.partial(AdoptedClassifier, Adopted("timm", "test_resnet")), orders=()
    )
    monkeypatch.setitem(VARIANTS, "test_resnet", row)
    words = [*SMALL_CLASSIFIER, "--steps", 1, "--json", "out.json", "model.arch=test_resnet"]
    status, out, err = tool("bench_train", *words, "--timm", "test_resnet")
    assert status == 0, err
    assert "timm test_resnet, NCHW" in out
    assert [step.updates for step in steps] == [2, 2, 2, 2]  # of two steps, the first warms up
    assert steps[2].model.conv1[0].weight.is_contiguous()
    step = steps[3]
    assert step.model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (step.updates, step.losses.count, step.losses.avg > 0) == (2, 4, True)
    assert len(step.optimizer.param_groups) == 2, "weights, which decay, and the others"
    weights = step.model.state_dict(), step.ema.module.state_dict()
    assert not torch.equal(*(each["conv1.0.weight"] for each in weights))
    others = json.loads((tmp_path / "out.json").read_text())[0]["others_ms"]
    assert all(each > 0 for each in others.values())
    assert len(others) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timm", "test_resnet"], "--timm test_resnet: has"),
        (["--timm", "resnet19"], "timm has no network 'resnet19'"),
    ],
)
def test_timms_network_is_the_same(tool, words, message):
    pytest.importorskip("timm")
    status, _, err = tool("bench_train", *SMALL_CLASSIFIER, *words)
    assert status == 2
    assert message in err
