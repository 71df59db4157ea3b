"""Time Mish beside ReLU and SoftPlus, as the Mish paper's Table 6 does, and fused with BatchNorm.

Each dtype is timed on three tensors, unless --shape names others: the paper's 16 x 10 x 256 x 256 and
16 x 64 x 40 x 40, which fit the caches of some machines, and 16 x 64 x 160 x 160, which fits few. Each
line gives the forward and the backward time, their ratios to ReLU, and the bandwidth they reach in per
cent of a copy's on this machine, counting only the memory that the operation must read and write.

The "kernel" rows allocate their result and bypass autograd; "into a given tensor" allocates nothing; the
paper's protocol is autograd.grad(f(x).mean(), x), which includes the backward pass of the mean.

On a CPU the process keeps the memory that it frees, as training and evaluation do. With --fresh-memory
each large result is newly mapped by Linux, page by page, as in any other torch process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector import ops
from detector.commands import cli
from detector.device import DTYPES, keep_freed_memory

PAPER, LARGE, SMALL = "16,10,256,256", "16,64,160,160", "16,64,40,40"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; times in ms, bandwidth in percent of a copy's bandwidth."""

    what: str
    dtype: str
    shape: str
    forward: float
    backward: float | None
    forward_bandwidth: float | None = None
    backward_bandwidth: float | None = None
    tensors: tuple[int, int] | None = None  # that forward and backward read or write


def measure_ms(call: Callable[[], object], device: str, runs: int) -> float:
    """Median over `runs` calls, after a fifth of them to warm up.

    On a GPU measured by CUDA events around each call, which exclude the launch while the GPU is busy.
    """
    for _ in range(max(2, runs // 5)):
        call()
    if device == "cuda":
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        torch.cuda.synchronize()
        for start, end in events:
            start.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(start.elapsed_time(end) for start, end in events)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def compute_mish_in_three_steps(x: Tensor) -> Tensor:
    """Mish as three operators, which is what the paper's Table 6 calls Mish."""
    return x * torch.tanh(functional.softplus(x))


def describe_cpu() -> str:
    """The CPU's model name, with the widest vector instructions that torch uses on it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else 'CPU'} ({torch.backends.cpu.get_cpu_capability()})"


class Bench:
    """One dtype and one shape on a device; `rows` yields the lines."""

    def __init__(self, shape: str, dtype: torch.dtype, device: str, runs: int, *, last: bool):
        self.sizes = [int(size) for size in shape.split(",")]
        self.shape = shape + (" nhwc" if last else "")
        self.device, self.runs = device, runs
        self.format = torch.channels_last if last else torch.contiguous_format
        x = torch.randn(self.sizes, device=device).to(dtype)
        self.x = x.contiguous(memory_format=self.format)
        self.grad = torch.randn_like(self.x)
        out = torch.empty_like(x)
        # Reads one tensor and writes one; torch's copy is not always the fastest operator that does so.
        copies = (lambda: out.copy_(x), lambda: torch.neg(x, out=out))
        self.copy = 2 * x.numel() * x.element_size() / min(map(self.time, copies))  # bytes per ms

    def time(self, call: Callable[[], object]) -> float:
        """Milliseconds of a call."""
        return measure_ms(call, self.device, self.runs)

    def row(
        self,
        what: str,
        forward: Callable[[], object],
        backward: Callable[[], object] | None,
        tensors: tuple[int, int] | None = None,
    ) -> Row:
        """Times one line; `tensors`: how many forward and backward read or write, for the bandwidth."""
        times = [self.time(forward), self.time(backward) if backward else None]
        share: list[float | None] = [None, None]
        for i, milliseconds_taken in enumerate(times):
            if tensors and milliseconds_taken:
                moved = tensors[i] * self.x.numel() * self.x.element_size()
                share[i] = 100 * moved / milliseconds_taken / self.copy
        dtype = str(self.x.dtype).removeprefix("torch.")
        return Row(what, dtype, self.shape, times[0] or 0.0, times[1], share[0], share[1], tensors)

    def through_autograd(
        self,
        what: str,
        function: Callable[[Tensor], Tensor],
        *parameters: Tensor,
        paper: bool,
    ) -> Row:
        """Times forward with autograd recording, and backward of the mean or with a given gradient."""
        x = self.x.clone().requires_grad_()
        y = function(x)
        root, grad = (y.mean(), None) if paper else (y, self.grad)
        return self.row(
            what,
            lambda: function(x),
            lambda: torch.autograd.grad(root, (x, *parameters), grad, retain_graph=True),
        )

    def paper(self, *, compiled: bool) -> Iterator[Row]:
        """The paper's protocol: forward, and the backward of the mean."""
        functions = {
            "ReLU": functional.relu,
            "SoftPlus": functional.softplus,
            "Mish composed": compute_mish_in_three_steps,
            "Mish of torch": functional.mish,
            "Mish ours": ops.mish,
        }
        if compiled:
            functions["Mish ours, torch.compile"] = torch.compile(ops.mish)
        for what, function in functions.items():
            yield self.through_autograd(what, function, paper=True)

    def kernels(self) -> Iterator[Row]:
        """The operators without autograd; forward reads or writes 2 tensors, backward 3."""
        x, grad, out = self.x, self.grad, torch.empty_like(self.x)
        aten, own = torch.ops.aten, torch.ops.detector_ops
        yield self.row(
            "kernel: ReLU",
            lambda: aten.relu(x),
            lambda: aten.threshold_backward(grad, x, 0),
            (2, 3),
        )
        yield self.row(
            "kernel: Mish of torch",
            lambda: aten.mish(x),
            lambda: aten.mish_backward(grad, x),
            (2, 3),
        )
        ours = ops.has_kernel("mish", x)
        if ours:
            yield self.row(
                "kernel: Mish ours",
                lambda: own.mish_forward(x),
                lambda: own.mish_backward(grad, x),
                (2, 3),
            )
        yield self.row(
            "into a given tensor: Mish of torch", lambda: aten.mish.out(x, out=out), None, (2, 0)
        )
        if ours:
            yield self.row(
                "into a given tensor: Mish ours", lambda: own.mish_out(x, out), None, (2, 0)
            )

    def batch_norm(self, *, compiled: bool) -> Iterator[Row]:
        """BatchNorm in training, then an activation; through autograd, with a given gradient."""
        norm = nn.BatchNorm2d(self.sizes[1]).to(self.device)
        values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)

        def ours(activation: ops.Activation) -> Callable[[Tensor], Tensor]:
            return lambda x: ops.batch_norm_act(x, *values, activation)

        functions = {
            "BN + ReLU of torch": lambda x: functional.relu(norm(x)),
            "BN + ReLU ours": ours(ops.leaky_relu(0.0)),
            "BN + Swish of torch": lambda x: functional.silu(norm(x)),
            "BN + Swish ours": ours(ops.swish(1.0)),
            "BN + Mish of torch": lambda x: functional.mish(norm(x)),
            "BN + Mish ours": ours(ops.MISH),
        }
        if compiled:
            functions["BN + Mish, torch.compile"] = torch.compile(ours(ops.MISH))
        for what, function in functions.items():
            yield self.through_autograd(what, function, norm.weight, norm.bias, paper=False)


def measure_overhead(device: str, runs: int) -> dict[str, float]:
    """Microseconds per call on a tensor of 128 elements, which is nearly all overhead."""
    x = torch.randn(128, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    result = {}
    for what, function in {"Mish of torch": functional.mish, "Mish ours": ops.mish}.items():
        best = float("inf")
        for _ in range(max(5, runs)):
            start = time.perf_counter()
            for _ in range(200):
                function(x)
            best = min(best, time.perf_counter() - start)
            wait()
        result[what] = 1e6 * best / 200
    return result


def print_rows(rows: list[Row]) -> None:
    """Prints the lines of one dtype and shape; ratios refer to the first row."""
    base = rows[0]
    for row in rows:
        shown = [f"{row.forward:9.3f}", f"{row.backward:9.3f}" if row.backward else " " * 9]
        shown.append(f"{row.forward / base.forward:8.2f}")
        both = row.backward and base.backward
        shown.append(f"{row.backward / base.backward:8.2f}" if both else " " * 8)  # pyright: ignore
        for share in (row.forward_bandwidth, row.backward_bandwidth):
            shown.append(f"{share:7.0f}%" if share else " " * 8)
        print(f"{row.dtype:9}{row.shape:19}{row.what:36}" + "".join(shown).rstrip())


def print_gains(rows: list[Row]) -> None:
    """Prints torch's time divided by ours for every operation that both have."""
    print(
        "\ntorch's time / ours                                                forward  backward  both"
    )
    for native in rows:
        if "of torch" not in native.what:
            continue
        name = native.what.replace("of torch", "ours")
        for own in rows:
            if (own.what, own.dtype, own.shape) != (name, native.dtype, native.shape):
                continue
            line = f"{own.dtype:9}{own.shape:19}{own.what:36}{native.forward / own.forward:9.1f}"
            if native.backward and own.backward:
                total = (native.forward + native.backward) / (own.forward + own.backward)
                line += f"{native.backward / own.backward:10.1f}{total:6.1f}"
            print(line)


def main() -> None:
    parser = cli.make_parser(__doc__ or "", "python tools/bench_mish.py --dtypes fp32 bf16")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu or cuda; default: cuda where there is a GPU",
    )
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--shape", nargs="+", default=[PAPER, SMALL, LARGE], help="each as B,C,H,W")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=0, help="timed calls; default 100, on a CPU 20")
    parser.add_argument("--fresh-memory", action="store_true", help="on a CPU: see above")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    args = parser.parse_args()
    if args.compile:
        from torch._functorch import config as functorch_config  # slow

        # each backward pass is timed many times on one graph, whose buffers it may not take over
        functorch_config.donated_buffer = False
    torch.set_num_threads(args.threads)
    kept = args.device == "cpu" and not args.fresh_memory and keep_freed_memory()
    runs = args.runs or (100 if args.device == "cuda" else 20)

    machine = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else describe_cpu(),
        "threads": args.threads,
        "runs": runs,
    }
    if args.device == "cpu":
        machine["memory"] = "kept" if kept else "fresh"
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print("median times in ms; ratios to the first line of each block; bandwidth in % of a copy's")
    print(f"{'':64}  forward backward   ratio   ratio   bandwidth")
    rows: list[Row] = []
    for name in args.dtypes:
        for shape in args.shape:
            for last in (False, True):
                bench = Bench(shape, DTYPES[name], args.device, runs, last=last)
                blocks = [bench.batch_norm(compiled=args.compile)]
                if not last:  # the memory format makes no difference to an elementwise kernel
                    blocks = [bench.paper(compiled=args.compile), bench.kernels(), *blocks]
                for block in blocks:
                    lines = list(block)
                    print_rows(lines)
                    rows += lines
    print_gains(rows)
    calls = measure_overhead(args.device, runs)
    print(
        "\noverhead per call: "
        + ", ".join(f"{what} {value:.1f} us" for what, value in calls.items())
    )
    if args.json:
        figures = {"machine": machine, "rows": [asdict(row) for row in rows], "call_us": calls}
        args.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        print(f"written: {args.json}")


if __name__ == "__main__":
    cli.run(main)
