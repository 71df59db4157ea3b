"""The network's forward and backward pass as CUDA graphs: one launch each, in place of thousands.

A GPU finishes the kernels of a training step faster than Python launches them. A graph is recorded once
for a shape of images and then replayed; the loss, whose shapes change with the ground truth, stays
outside. The kernels are the same, so the numbers are too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detector.device import Hardware
from detector.engine.out_of_memory import BufferSnapshot
from detector.errors import raise_lost_worker

SEEN_BEFORE = 2  # batches of a shape that run eagerly first: a rare shape is not worth a graph
MAX_GRAPHS = 12  # shapes; each keeps one set of gradients
WARMUP_STEPS = 3  # before recording: libraries choose kernels and allocate their workspaces

Forward = Callable[[Tensor], Sequence[Tensor]]
Record = Callable[[nn.Module, Tensor], Forward]


def find_capture_obstacle(
    hardware: Hardware,
    *,
    world_size: int,
    compiled: bool,
    changing: bool,
    checkpointed: bool = False,
) -> str | None:
    """Why the passes of a run cannot be CUDA graphs, in a few words; None if they can."""
    if hardware.device.type != "cuda":
        return "CUDA graphs need an NVIDIA GPU"
    if world_size > 1:
        return "several ranks exchange statistics and gradients within the passes"
    if compiled:
        return "train.compile has its own"
    if checkpointed:
        return "train.activation_checkpointing runs blocks again in the backward pass"
    if changing:
        return "bag.dropblock changes the network from batch to batch"
    return None


class GraphedForward:
    """The forward pass of a model, eager at first and replayed from a graph once its shape is known.

    Only one graph's results are alive at a time: the maps of a call, and the gradients that its backward
    pass accumulates into `parameter.grad`, are overwritten by the next call of the same shape. Keep
    gradients over several calls with `keep_gradients`.
    """

    def __init__(
        self,
        model: nn.Module,
        hardware: Hardware,
        announce: Callable[..., None],
        record: Record | None = None,
    ) -> None:
        """
        Args:
            model: in training mode at each call.
            hardware: its device and precision.
            announce: reports "capture off" with its reason, as `Trainer.announce`.
            record: makes the replayed pass of a model for images of one shape; the tests replace it.
        """
        self.model, self.hardware, self._announce = model, hardware, announce
        self._record = record or GraphRecorder(hardware)
        self._graphs: dict[torch.Size, Forward] = {}
        self._seen: dict[torch.Size, int] = {}
        self._buffers = BufferSnapshot(model)
        self._enabled = True

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """The raw maps, by level [B, A, H, W, 5 + classes]."""
        graph = self._graphs.get(images.shape) or self._capture(images)
        if graph is not None:
            return graph(images)
        with self.hardware.autocast():
            return self.model(images)

    def keep_gradients(self) -> None:
        """Moves the accumulated gradients out of the graphs' memory."""
        if not self._graphs:
            return
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()

    def _capture(self, images: Tensor) -> Forward | None:
        """The graph of a shape that has come often enough."""
        seen = self._seen.get(images.shape, 0)
        self._seen[images.shape] = seen + 1
        full = len(self._graphs) >= MAX_GRAPHS
        if not self._enabled or full or seen < SEEN_BEFORE or not len(images):
            return None
        self._buffers.take()  # recording runs the network a few times
        try:
            self._graphs[images.shape] = self._record(self.model, images)
        except torch.OutOfMemoryError:
            self._give_up("out of memory")
        except RuntimeError as error:  # an operation that cannot be recorded
            raise_lost_worker(error)
            self._give_up((str(error).splitlines() or [type(error).__name__])[0])
        finally:
            self._buffers.restore()
        return self._graphs.get(images.shape)

    def _give_up(self, reason: str) -> None:
        self._enabled = False
        self._graphs.clear()
        if self.hardware.device.type == "cuda":
            torch.cuda.empty_cache()
        self._announce("capture off", text=f"train.capture: off from here on: {reason}")


class GraphRecorder:
    """Records the passes of a model; all graphs share the memory of their intermediate results."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self._pool: Any = None

    def __call__(self, model: nn.Module, images: Tensor) -> Forward:
        """The replayed passes for images of this shape.

        Raises:
            RuntimeError: an operation of the model cannot be recorded.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # without a cache of cast weights, which would outlive the recording
        with self.hardware.autocast(cache=False):
            return RecordedPasses(model, images, self._pool)


class RecordedPasses:
    """A forward and a backward graph, and the memory that both read and write."""

    def __init__(self, model: nn.Module, images: Tensor, pool: Any) -> None:
        """Records `model` on `images`, in the memory pool; its buffers change as in a few batches."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # Other leaves of the same memory: autograd ties a leaf to the stream on which it meets it first,
        # and that of the recording is not that of the training.
        leaves = {
            name: p.detach().requires_grad_(p.requires_grad) for name, p in model.named_parameters()
        }
        trained = [leaf for leaf in leaves.values() if leaf.requires_grad]
        self.images = images.clone()

        def run_forward() -> tuple[Tensor, ...]:
            return tuple(torch.func.functional_call(model, leaves, (self.images,)))

        def run_backward(raw: tuple[Tensor, ...], gradients: list[Tensor]) -> Any:
            return torch.autograd.grad(raw, trained, gradients, allow_unused=True)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                raw = run_forward()
                run_backward(raw, list(map(torch.zeros_like, raw)))
                del raw  # or the next pass would need the memory of two
        torch.cuda.current_stream().wait_stream(stream)

        # thread_local: the loader's thread may pin memory meanwhile, which "global" forbids it
        record = functools.partial(
            torch.cuda.graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        )
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with record(self.forward_graph):
            raw = run_forward()
        self.raw = [level.detach() for level in raw]
        self.raw_gradients = [torch.zeros_like(level) for level in raw]
        with record(self.backward_graph):
            self.gradients = run_backward(raw, self.raw_gradients)

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """The raw maps of images of the recorded shape; valid until the next call."""
        return _Replay.apply(self, images, *self.parameters)


class _Replay(torch.autograd.Function):
    """The recorded passes as one node of the autograd graph."""

    @staticmethod
    def forward(
        ctx: Any, passes: RecordedPasses, images: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.passes = passes
        passes.images.copy_(images)
        passes.forward_graph.replay()
        return tuple(level.detach() for level in passes.raw)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        passes = ctx.passes
        torch._foreach_copy_(passes.raw_gradients, list(gradients))  # pyright: ignore
        passes.backward_graph.replay()
        return None, None, *(None if g is None else g.detach() for g in passes.gradients)
