"""Times Mish, and BatchNorm + Mish in training, on the CPU: torch's own and the compiled kernels.

python tools/bench_mish.py --shape 16,64,40,40 --threads 2
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector import ops

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = ["16,16,160,160", "16,32,80,80", "16,64,40,40"]


def milliseconds(function: Callable[[], object], runs: int) -> float:
    """The fastest of `runs` calls, after two to warm up: the least disturbed by other processes."""
    times = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[2:])


def train_step(norm: nn.BatchNorm2d, x: Tensor, grad: Tensor, *, fused: bool) -> None:
    """Forward and backward of BatchNorm + Mish for x [B, C, H, W]."""
    if fused:
        z = ops.batch_norm_mish(x, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    else:
        z = functional.mish(norm(x))
    torch.autograd.grad(z, (x, norm.weight, norm.bias), grad)


def rows(shape: list[int], memory_format: torch.memory_format) -> dict[str, tuple]:
    """What is timed -> (torch's own, ours)."""
    x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(shape).contiguous(memory_format=memory_format)
    still = x.detach()
    norm = nn.BatchNorm2d(shape[1])
    native, ours = functional.mish(x), ops.mish(x)
    return {
        "mish forward": (lambda: functional.mish(still), lambda: ops.mish(still)),
        "mish backward": (
            lambda: torch.autograd.grad(native, x, grad, retain_graph=True),
            lambda: torch.autograd.grad(ours, x, grad, retain_graph=True),
        ),
        "mish in place": (
            lambda: functional.mish(grad, inplace=True),
            lambda: ops.mish_(grad),
        ),
        "bn + mish, forward and backward": (
            lambda: train_step(norm, x, grad, fused=False),
            lambda: train_step(norm, x, grad, fused=True),
        ),
    }


def main() -> None:
    """Prints one line for each operator, shape and memory format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="B,C,H,W; may be given several times")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print(f"torch {torch.__version__}, {arguments.threads} threads, float32, ms: fastest call")
    print(f"{'':52}{'torch':>9}{'ours':>9}{'ratio':>7}")
    for shape in arguments.shape or SHAPES:
        for name, memory_format in FORMATS.items():
            sizes = [int(size) for size in shape.split(",")]
            for what, (native, ours) in rows(sizes, memory_format).items():
                a, b = milliseconds(native, arguments.runs), milliseconds(ours, arguments.runs)
                print(f"{shape:15} {name:14}{what:34}{a:8.2f}{b:9.2f}{a / b:7.1f}")


if __name__ == "__main__":
    main()
