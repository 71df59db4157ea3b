"""Activation checkpointing changes what is kept, and nothing else."""

import copy

import pytest
import torch
from torch import Tensor, nn

from detector.build import build_model
from detector.config import load_config
from detector.errors import UserError
from detector.nn import (
    BatchNormAct2d,
    BatchNormSettings,
    ConvNormAct,
    CSPStage,
    use_checkpointing,
)


@pytest.fixture(scope="module", params=["yolov4-pacsp-n-mish", "yolov4-tiny"])
def models(request) -> tuple[nn.Module, nn.Module]:
    """A network, and the same with checkpointing."""
    torch.manual_seed(0)
    model = build_model(load_config(request.param).model, 3).train()
    other = copy.deepcopy(model)
    assert use_checkpointing(other) > 5
    return model, other


def run(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    maps = model(images)
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    return maps


def test_maps_gradients_and_statistics_have_the_same_bits(models):
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    for model in models:
        model.to(memory_format=torch.channels_last)
    a, b = (run(model, images) for model in models)
    assert all(map(torch.equal, a, b))
    model, other = models
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, p), q in zip(model.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(p, q), name
    assert list(model.state_dict()) == list(other.state_dict())


def test_less_is_kept(models):
    def measure_kept(model: nn.Module) -> int:
        images = torch.rand(2, 3, 64, 64)
        with torch.profiler.profile(profile_memory=True) as profile:
            maps = model(images)
        del maps
        return sum(each.self_cpu_memory_usage for each in profile.key_averages())

    usual, less = map(measure_kept, models)
    assert less < 0.6 * usual


def test_only_the_outermost_blocks_keep_their_input():
    stage = CSPStage(4, 8, 1, act=lambda _: nn.Mish(), norm=BatchNormSettings())
    assert use_checkpointing(nn.Sequential(stage, nn.ReLU())) == 1
    inner = [m for m in stage.modules() if isinstance(m, ConvNormAct)]
    assert stage.keeps_input_only
    assert not any(each.keeps_input_only for each in inner)


def test_evaluation_runs_as_usual(models):
    _, other = models
    other.eval()
    with torch.no_grad():
        other(torch.rand(1, 3, 64, 64))
    counts = [m.num_batches_tracked for m in other.modules() if isinstance(m, BatchNormAct2d)]
    other.train()
    assert len({int(count) for count in counts}) == 1


def test_not_with_compile():
    words = ["train.compile=true", "train.activation_checkpointing=true"]
    with pytest.raises(UserError, match="activation_checkpointing: torch"):
        load_config("yolov4-pacsp-n-mish", words)
