"""CUDA graphs of the forward and backward pass: when one is made, and what it leaves as it was.

`pytest -m gpu` has real graphs (tests/test_gpu.py); here a stand-in takes the recorder's place.
"""

import pytest
import torch
from torch import nn

from detector.device import Hardware
from detector.engine import cuda_graphs
from detector.engine.cuda_graphs import SEEN_BEFORE, GraphedForward, find_capture_obstacle
from tests.engine.small_trainer import CPU, equal, make

GPU = Hardware(torch.device("cuda"), "fp16", torch.channels_last)


class StaticGradients(torch.autograd.Function):
    """Like a replayed graph: the gradients of all calls are written to the same memory."""

    @staticmethod
    def forward(ctx, replay, images, *parameters):
        ctx.replay = replay
        with torch.enable_grad():
            ctx.raw = replay.model(images)
        return ctx.raw.detach()

    @staticmethod
    def backward(ctx, grad):
        parameters = list(ctx.replay.model.parameters())
        new = torch.autograd.grad(ctx.raw, parameters, grad)
        for static, value in zip(ctx.replay.gradients, new, strict=True):
            static.copy_(value)
        return None, None, *(static.detach() for static in ctx.replay.gradients)


class Replay:
    def __init__(self, model):
        self.model = model
        self.gradients = [torch.empty_like(p) for p in model.parameters()]

    def __call__(self, images):
        return StaticGradients.apply(self, images, *self.model.parameters())


class Recorder:
    """Runs the network, as a recording does, and returns a stand-in for the graph."""

    def __init__(self, error=None):
        self.error, self.shapes = error, []

    def __call__(self, model, images):
        self.shapes.append(tuple(images.shape))
        model(images + 1)  # changes the BatchNorm statistics
        if self.error is not None:
            raise self.error
        return Replay(model)


def capture(trainer, recorder, announce=lambda *_, **__: None):
    trainer.step._graphed = GraphedForward(trainer.model, CPU, announce, recorder)
    return trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_graphs_ends_with_the_same_bits(accumulate):
    """Also where a step accumulates the gradients of several batches, of which some are eager."""
    eager, recorder = make(accumulate=accumulate), Recorder()
    eager.run()
    graphed = capture(make(accumulate=accumulate), recorder)
    graphed.run()
    assert recorder.shapes == [(4, 3, 8, 8), (2, 3, 8, 8)]  # the last batch of an epoch is smaller
    assert equal(eager, graphed)


def test_a_network_that_cannot_be_recorded_trains_eagerly():
    events = []
    error = RuntimeError("operation not permitted when stream is capturing\nmore")
    graphed = capture(make(), Recorder(error), lambda name, **values: events.append((name, values)))
    graphed.run()
    eager = make()
    eager.run()
    assert equal(eager, graphed)
    text = "train.capture: off from here on: operation not permitted when stream is capturing"
    assert events == [("capture off", {"text": text})]


def test_rare_shapes_and_empty_batches_run_eagerly(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    recorder = Recorder()
    model = nn.Conv2d(3, 1, 3)
    forward = GraphedForward(model, CPU, lambda *_, **__: None, recorder)
    for size in (8, 9, 10, 8, 9):
        for images in (torch.rand(1, 3, size, size), torch.rand(0, 3, size, size)):
            for _ in range(SEEN_BEFORE):
                assert torch.equal(forward(images), model(images))
    assert recorder.shapes == [(1, 3, 8, 8), (1, 3, 9, 9)]


@pytest.mark.parametrize(
    ("hardware", "changes", "words"),
    [
        (CPU, {}, "CUDA graphs need an NVIDIA GPU"),
        (GPU, {"world_size": 2}, "several ranks"),
        (GPU, {"compiled": True}, "train.compile"),
        (GPU, {"changing": True}, "bag.dropblock"),
        (GPU, {}, None),
    ],
)
def test_obstacles(hardware, changes, words):
    run = {"world_size": 1, "compiled": False, "changing": False, **changes}
    obstacle = find_capture_obstacle(hardware, **run)
    assert obstacle is None if words is None else words in obstacle
