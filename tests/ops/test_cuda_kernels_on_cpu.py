"""The CUDA kernels of csrc/*.cuh without a GPU: by g++, on the CUDA runtime of tests/ops/emulator.

What is tested is what a kernel does with its indices, vectors, shared memory and barriers. The
GPU's own arithmetic is not: the kernels get the host's branch of mish_math.h and numbers.h.

For another family of kernels write tests/ops/emulator/NAME.cpp, C functions that launch them, and
call them through the fixture: call(emulated("NAME").function, x, y, len(x)).
"""

import ctypes
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from detector import ops

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).with_name("emulator")
FLAGS = (
    "-std=c++17 -O1 -fPIC -shared "
    # A misaligned vector, or an index beyond an array of shared memory: the process ends.
    "-fsanitize=undefined -fsanitize-undefined-trap-on-error "
    "-fno-gnu-unique"  # each library has an emulator of its own
)
ALL = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

Libraries = Callable[[str], ctypes.CDLL]


def compile_emulated(name: str, folder: Path) -> Path:
    """tests/ops/emulator/NAME.cpp as a library in this folder."""
    if shutil.which("g++") is None or sys.platform != "linux":
        pytest.skip("the emulator of CUDA needs g++ on Linux")
    library = folder / f"{name}.so"
    include = ["-I", str(EMULATOR), "-I", str(ROOT / "csrc")]
    source = str(EMULATOR / f"{name}.cpp")
    subprocess.run(["g++", *FLAGS.split(), *include, source, "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> Libraries:
    """From the name of a file in tests/ops/emulator to its library, compiled at the first use."""
    folder = tmp_path_factory.mktemp("emulated")
    return functools.cache(lambda name: ctypes.CDLL(str(compile_emulated(name, folder))))


@pytest.fixture(params=["forwards", "backwards"])
def emulated(request, libraries: Libraries) -> Libraries:
    """The same, with blocks and threads in this order: no result may depend on it."""

    def load(name: str) -> ctypes.CDLL:
        library = libraries(name)
        library.run_backwards(request.param == "backwards")
        return library

    return load


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def call(function: Callable, *arguments: Tensor | int | float) -> None:
    """A C function of pointers to these tensors, of int64_t and of double."""
    function(*map(as_c, arguments))


def as_c(argument: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument)


GUARD = 64  # elements: a multiple of 16 bytes in every dtype
UNTOUCHED = 1.0  # neither Mish nor its slope maps this to itself


def guarded(values: Tensor, offset: int = 0) -> Tensor:
    """A copy, `offset` elements after a multiple of 16 bytes, in the middle of a longer tensor."""
    around = values.new_full((len(values) + 2 * GUARD + offset,), UNTOUCHED)
    assert around.data_ptr() % 16 == 0
    inside = around[GUARD + offset : GUARD + offset + len(values)]
    return inside.copy_(values)


def assert_nothing_else_written(inside: Tensor) -> None:
    around, start = inside._base, inside.storage_offset()
    assert (around[:start] == UNTOUCHED).all()
    assert (around[start + len(inside) :] == UNTOUCHED).all()


def counts(dtype: torch.dtype) -> list[int]:
    """Around a vector, and around the elements of a block: 256 threads x 2 vectors."""
    width = 16 // dtype.itemsize
    block = 256 * 2 * width
    return [1, 7, 255, width, 2 * width + 1, block - 1, block, block + 1, 3 * block + 2 * width + 1]


@pytest.mark.parametrize("offsets", [(0, 0), (0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_mish(emulated: Libraries, dtype, offsets):
    mish = emulated("mish")[f"mish_{name_of(dtype)}"]
    for count in counts(dtype):
        values = 4 * torch.randn(count, dtype=dtype)
        x, y = guarded(values, offsets[0]), guarded(torch.zeros_like(values), offsets[1])
        call(mish, x, y, count)
        torch.testing.assert_close(y, functional.mish(values))
        assert torch.equal(x, values)
        assert_nothing_else_written(y)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_mish_in_place(emulated: Libraries, dtype, offset):
    mish = emulated("mish")[f"mish_{name_of(dtype)}"]
    for count in counts(dtype):
        values = 4 * torch.randn(count, dtype=dtype)
        x = guarded(values, offset)
        call(mish, x, x, count)
        torch.testing.assert_close(x, functional.mish(values))
        assert_nothing_else_written(x)


@pytest.mark.parametrize("offsets", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=str)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_mish_backward(emulated: Libraries, dtype, offsets):
    backward = emulated("mish")[f"mish_backward_{name_of(dtype)}"]
    for count in counts(dtype):
        upstream, values = torch.randn(count, dtype=dtype), 4 * torch.randn(count, dtype=dtype)
        expected = torch.ops.aten.mish_backward(upstream, values)
        tensors = (upstream, values, torch.zeros_like(values))
        grad, x, grad_x = map(guarded, tensors, offsets)
        call(backward, grad, x, grad_x, count)
        torch.testing.assert_close(grad_x, expected)
        assert torch.equal(grad, upstream)
        assert torch.equal(x, values)
        assert_nothing_else_written(grad_x)


# Maps [B, C, plane]: smaller than a vector; planes and channels that vectors divide and that they do not;
# more channels than a block has; several splits of a channel, whose last block is cut; one pixel. The
# last has more splits than the kernel has threads that adds them up.
MAPS = [
    (2, 3, 35),
    (3, 16, 440),
    (2, 300, 12),
    (2, 4, 5008),
    (2, 264, 40),
    (6, 8, 1),
    (1, 1, 70001),
]
NARROW = [torch.float32, torch.bfloat16, torch.float16]
ACTIVATIONS = dict(zip(NARROW, (ops.MISH, ops.leaky_relu(0.1), ops.swish(1.5)), strict=True))

# Every shape in both memory formats and every dtype; over the shapes, each dtype and format meets aligned
# and unaligned pointers and both orders of threads.
MAP_CASES = [
    (shape, last, dtype, (number + kind) % 2, ("forwards", "backwards")[(number // 2 + last) % 2])
    for number, shape in enumerate(MAPS)
    for last in (0, 1)
    for kind, dtype in enumerate(NARROW)
]
maps_of_every_kind = pytest.mark.parametrize(
    ("shape", "last", "dtype", "offset", "emulated"), MAP_CASES, indirect=["emulated"], ids=str
)


def drawn_maps(shape: tuple[int, int, int], last: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Maps in memory order, flat, and the same numbers [B, C, plane] in float64."""
    x = (2 * torch.randn(shape) + 1).to(dtype)
    return (x.transpose(1, 2) if last else x).flatten(), x.double()


def per_channel(values: Tensor) -> Tensor:
    return values.double().view(1, -1, 1)


def in_memory_order(maps: Tensor, last: int) -> Tensor:
    return (maps.transpose(1, 2) if last else maps).flatten()


@maps_of_every_kind
def test_batch_norm_statistics(emulated: Libraries, shape, last, offset, dtype):
    flat, maps = drawn_maps(shape, last, dtype)
    mean, var = (guarded(torch.zeros(shape[1])) for _ in range(2))
    stats = emulated("bn_act")[f"bn_stats_{name_of(dtype)}"]
    call(stats, guarded(flat, offset), *shape, last, mean, var)
    torch.testing.assert_close(mean.double(), maps.mean((0, 2)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), maps.var((0, 2), correction=0), rtol=2e-6, atol=1e-7)
    assert_nothing_else_written(mean)
    assert_nothing_else_written(var)


@pytest.mark.parametrize("last", [0, 1])
def test_batch_norm_statistics_with_a_large_mean_and_an_outlier(emulated: Libraries, last):
    _, maps = drawn_maps((2, 8, 3000), last, torch.float32)
    stats, mean, var = emulated("bn_act").bn_stats_float32, torch.empty(8), torch.empty(8)
    large = maps.float() + 1e4 * torch.arange(1, 9).view(1, 8, 1)  # another one in each channel
    call(stats, in_memory_order(large, last), 2, 8, 3000, last, mean, var)
    exact = large.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2)), rtol=1e-7, atol=0)
    torch.testing.assert_close(var.double(), exact.var((0, 2), correction=0), rtol=1e-4, atol=0)
    maps[0, :, 0] = 1e6
    call(stats, in_memory_order(maps.float(), last), 2, 8, 3000, last, mean, var)
    torch.testing.assert_close(var.double(), maps.var((0, 2), correction=0), rtol=1e-5, atol=0)


@maps_of_every_kind
def test_batch_norm_act(emulated: Libraries, shape, last, offset, dtype):
    """Apply, reduce and apply backward against torch's own in float64; an activation for each dtype."""
    library, act, name = emulated("bn_act"), ACTIVATIONS[dtype], name_of(dtype)
    flat, maps = drawn_maps(shape, last, dtype)
    upstream, wide_upstream = drawn_maps(shape, last, dtype)
    mean, rstd, weight, bias = channel_values = [torch.rand(shape[1]) + 0.3 for _ in range(4)]
    count = shape[0] * shape[2] + 3  # as if another rank had 3 elements
    x, grad = guarded(flat, offset), guarded(upstream, offset)
    z, grad_x = (guarded(torch.zeros_like(flat), (offset + i) % 2) for i in range(2))
    sum_dy, sum_dy_xhat = (guarded(torch.zeros(shape[1])) for _ in range(2))
    given = (x, *shape, last, *channel_values, act.parameter)

    call(library[f"bn_act_apply_{name}"], *given, z)
    call(library[f"bn_act_reduce_{name}"], grad, *given, sum_dy, sum_dy_xhat)
    call(
        library[f"bn_act_backward_{name}"], grad, *given, sum_dy, sum_dy_xhat, float(count), grad_x
    )

    xhat = (maps - per_channel(mean)) * per_channel(rstd)
    y = (xhat * per_channel(weight) + per_channel(bias)).requires_grad_()
    expected = act(y)
    (dy,) = torch.autograd.grad(expected, y, wide_upstream)
    sums = dy.sum((0, 2)), (dy * xhat).sum((0, 2))
    centred = dy - per_channel(sums[0]) / count - xhat * per_channel(sums[1]) / count
    wanted = centred * per_channel(weight * rstd)

    rough = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-4}
    torch.testing.assert_close(z.double(), in_memory_order(expected.detach(), last), **rough)
    torch.testing.assert_close(grad_x.double(), in_memory_order(wanted, last), **rough)
    for got, exact in zip((sum_dy, sum_dy_xhat), sums, strict=True):
        near = 1e-7 * dy.abs().sum((0, 2)).max().item()  # they cancel
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=max(near, 1e-3))
    for written in (z, grad_x, sum_dy, sum_dy_xhat):
        assert_nothing_else_written(written)


def sums_of_tiles(function: Callable, x: Tensor) -> Tensor:
    y = torch.empty(-(-x.shape[0] // 4), -(-x.shape[1] // 32))
    call(function, x, y, *x.shape)
    return y


class TestTheEmulator:
    def test_barriers_shared_memory_and_two_dimensions(self, emulated: Libraries):
        x = torch.randint(-99, 99, (11, 70)).float()
        padded = functional.pad(x, (0, 26, 0, 1))
        sums = sums_of_tiles(emulated("barriers").sums, x)
        assert torch.equal(sums, padded.view(3, 4, 3, 32).sum((1, 3)))

    def test_a_missing_barrier_shows_in_one_order(self, libraries: Libraries):
        library, sums = libraries("barriers"), []
        for backwards in (False, True):
            library.run_backwards(backwards)
            sums.append(sums_of_tiles(library.sums_without_barriers, torch.ones(4, 32)).item())
        assert sums[0] != sums[1]

    def test_shared_memory_is_nan_at_first(self, emulated: Libraries):
        y = torch.zeros(128)
        call(emulated("barriers").unwritten, y)
        assert y.isnan().all()

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("a_thread_ends", "127 wait at the __syncthreads() of line"),
            ("a_thread_waits_elsewhere", "some wait at the __syncthreads() of line"),
            ("an_empty_grid", "has no such grid"),
            ("a_misplaced_vector", ""),  # a trap, without a message
        ],
    )
    def test_what_is_undefined_ends_the_process(self, libraries: Libraries, function, message):
        path = libraries("barriers")._name
        program = f"import ctypes; ctypes.CDLL({path!r}).{function}()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode < 0
        assert message in done.stderr
