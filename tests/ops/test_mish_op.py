"""Mish against float64, against torch's own, and against the definition of its derivatives."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from detector import ops
from detector.ops import _load, _mish

SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 19.99, 20.0, 20.01, 3e38, -104.0, -110.0, -1.192, 88.8, -3e38]

# GPUs flush what is below float32's smallest normal number to 0, here the exponential that x is
# multiplied with: the largest such product
FLUSHED = 90 * 1.2e-38
compiled_only = pytest.mark.usefixtures("compiled")
pytestmark = pytest.mark.usefixtures("device")
ALL = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def reference(x: Tensor) -> Tensor:
    """The definition, in float64."""
    wide = x.double()
    return wide * torch.tanh(torch.log1p(torch.exp(wide.clamp(max=40))))


def reference_slope(x: Tensor) -> Tensor:
    """The derivative of the definition, by autograd in float64."""
    wide = x.double().requires_grad_()
    return torch.autograd.grad(reference(wide).sum(), wide)[0]


def slope_of(x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(ops.mish(x).sum(), x)[0]


@compiled_only
def test_the_compiled_kernel_is_what_runs(device):
    assert _load.status(device) == _load.Status(usable=True)
    rows = [r for r in ops.implementation_table() if (r["op"], r["device"]) == ("mish", device)]
    assert {row["dtype"]: row["implementation"] for row in rows} == dict.fromkeys(
        ("float32", "float64", "bfloat16", "float16"), "compiled"
    )


@compiled_only  # torch's own slope is off by 1e-6
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_slopes_are_those_of_float64(dtype, device):
    x = torch.cat([torch.linspace(-110, 40, 60_001), torch.tensor(SPECIAL[:-1])]).to(dtype)
    rtol = 4e-7 if dtype == torch.float32 else 4e-15
    # below it float32 is denormal and has no relative precision to speak of
    smallest = FLUSHED if device == "cuda" and dtype == torch.float32 else 1e-37
    torch.testing.assert_close(ops.mish(x).double(), reference(x), rtol=rtol, atol=smallest)
    # where the two terms of the slope cancel (x near -1.19) only the absolute error means anything
    torch.testing.assert_close(slope_of(x).double(), reference_slope(x), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_special_values(dtype):
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0], dtype=dtype)
    y = ops.mish(x)
    assert y.isnan().tolist() == [True, False, True, False, False]
    assert y[1] == math.inf
    assert torch.equal(y[3:].signbit(), torch.tensor([False, True]))


@compiled_only  # torch's own gives NaN at inf
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_slope_above_20_is_exactly_1(dtype):
    x = torch.tensor([20.25, 21.0, 88.0, 700.0, 6e4, 1e30, math.inf], dtype=dtype)
    assert torch.equal(slope_of(x), torch.ones_like(x))
    assert torch.equal(ops.mish(x), x)
    assert slope_of(torch.tensor([math.nan], dtype=dtype)).isnan().all()


@compiled_only  # against torch's own, whose values are right to the last bit of a 16-bit number
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_16_bits(dtype, device):
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    # Near a tie the last bit of two exponentials decides; bfloat16 has no such tie on the CPU.
    last_bit = 0 if device == "cpu" and dtype == torch.bfloat16 else torch.finfo(dtype).eps
    smallest = 2**-24 if dtype == torch.float16 else FLUSHED if device == "cuda" else 1e-37
    torch.testing.assert_close(
        ops.mish(x), functional.mish(x), rtol=last_bit, atol=smallest, equal_nan=True
    )
    finite = x[x.isfinite()]
    slope = reference_slope(finite)
    torch.testing.assert_close(
        slope_of(finite).double(), slope, rtol=torch.finfo(dtype).eps, atol=1e-6
    )


@compiled_only
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_numbers_go_in_and_out_unchanged(dtype):
    """Above 20 Mish is the identity and its slope 1: what is left is the conversion, there and back."""
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    above = x[x > 20]
    assert torch.equal(ops.mish(above), above)
    finite = x[x.isfinite()]
    passed = torch.ops.detector_ops.mish_backward(finite, torch.full_like(finite, 21))
    assert torch.equal(passed.view(torch.int16), finite.view(torch.int16))


@compiled_only
def test_float16_results_are_right_to_the_last_bit():
    """Products of two float16 that fall between two others, up to overflow and down to denormals."""
    grad = torch.rand(20_000).mul(6e4).add(1).half()
    x = torch.linspace(
        0, 12, 20_000
    ).half()  # below 0 the slope has a zero, and no relative accuracy
    for scale in (1.0, 1e-4, 1e-8):
        upstream = (grad.float() * scale).half()
        got = torch.ops.detector_ops.mish_backward(upstream, x)
        exact = (upstream.double() * reference_slope(x)).half()
        torch.testing.assert_close(got, exact, rtol=2**-10, atol=2**-24)


LAYOUTS = {
    "contiguous": lambda: torch.randn(3, 5, 7, 4),
    "channels_last": lambda: torch.randn(3, 5, 7, 4).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(6, 9).t(),
    "sliced": lambda: torch.randn(5, 40)[1:, 3:31:2],
    "offset": lambda: torch.randn(1001)[1:],
    "expanded": lambda: torch.randn(4, 1).expand(4, 6),
    "empty": lambda: torch.randn(2, 0, 3),
    "scalar": lambda: torch.randn(()),
    "large": lambda: torch.randn(2, 3, 111, 113),  # beyond the grain: threads take part
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout):
    x = LAYOUTS[layout]()
    y = ops.mish(x)
    torch.testing.assert_close(y, reference(x).float())
    if _mish._is_dense(x):
        assert y.stride() == x.stride()
    torch.testing.assert_close(slope_of(x), reference_slope(x).float())


def test_gradients_of_other_strides():
    x = torch.randn(4, 6, 5, requires_grad=True)
    slope = reference_slope(x.detach()).float()
    upstream = torch.randn(5, 4, 6)
    (expanded,) = torch.autograd.grad(ops.mish(x).sum(), x)  # a gradient with strides 0
    (permuted,) = torch.autograd.grad(ops.mish(x).permute(2, 0, 1), x, upstream)
    torch.testing.assert_close(expanded, slope)
    torch.testing.assert_close(permuted, slope * upstream.permute(1, 2, 0))


def test_first_and_second_derivatives_numerically():
    x = torch.tensor([-6.0, -1.2, -0.3, 0.0, 0.7, 3.0, 12.0], dtype=torch.float64)
    x.requires_grad_()
    for function in (ops.mish, lambda x: ops.mish(x[::2])):  # a slice is copied before the kernel
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@compiled_only
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_operators_keep_torchs_contract(dtype):
    x = torch.randn(3, 4, 5).transpose(0, 2).to(dtype)
    for op, arguments in [
        ("mish_forward", (x,)),
        ("mish_backward", (x, x)),
        ("mish_", (x,)),
        ("mish_out", (x, x.clone())),
    ]:
        torch.library.opcheck(getattr(torch.ops.detector_ops, op).default, arguments)


@compiled_only
def test_operators_refuse_what_they_cannot_do():
    x = torch.randn(4, 6)
    with pytest.raises(RuntimeError):
        torch.ops.detector_ops.mish_forward(x[:, ::2])
    with pytest.raises(RuntimeError):
        torch.ops.detector_ops.mish_forward(x.int())
    with pytest.raises(RuntimeError):
        torch.ops.detector_ops.mish_backward(x.t().contiguous().t(), x)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "scalar"])
def test_in_place(layout):
    x = LAYOUTS[layout]()
    expected = ops.mish(x)
    with torch.inference_mode():
        y = x.clone()
        assert ops.mish_(y) is y
    torch.testing.assert_close(y, expected)


def test_in_place_under_autograd():
    x = torch.randn(5, requires_grad=True)
    ops.mish_(x * 1).sum().backward()
    torch.testing.assert_close(x.grad, slope_of(x.detach()))
    y = x.exp()  # exp keeps its result for the backward pass
    with torch.no_grad():
        ops.mish_(y.detach())
    with pytest.raises(RuntimeError, match="inplace operation"):
        y.sum().backward()


def test_autocast_passes_the_dtype_through(device):
    with torch.autocast(device, dtype=torch.bfloat16):
        assert ops.mish(torch.randn(3)).dtype == torch.float32
        assert ops.mish(torch.randn(3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@compiled_only
def test_into_a_given_tensor():
    x, y = torch.randn(5, 7), torch.empty(5, 7)
    torch.ops.detector_ops.mish_out(x, y)
    assert torch.equal(y, ops.mish(x))
    with pytest.raises(RuntimeError):
        torch.ops.detector_ops.mish_out(x, y.t())


def test_formula_in_torch_operators_agrees():
    x = torch.tensor([*SPECIAL[:-1], math.inf, math.nan])
    torch.testing.assert_close(
        _mish.rational_mish(x), ops.mish(x), rtol=4e-7, atol=1e-37, equal_nan=True
    )
    x = torch.tensor([-30.0, -1.2, 0.0, 5.0, 20.0, 25.0, math.inf], requires_grad=True)
    (slope,) = torch.autograd.grad(_mish.rational_mish(x).sum(), x)
    torch.testing.assert_close(slope, _mish.rational_mish_derivative(x.detach()))
    assert slope[-2:].tolist() == [1.0, 1.0]


def test_functorch_and_tracing_use_torchs_operators():
    x = torch.randn(3, 4)
    per_row = torch.func.vmap(torch.func.grad(lambda row: ops.mish(row).sum()))(x)
    torch.testing.assert_close(per_row, reference_slope(x).float())


def test_exports_the_formula_in_torchs_operators():
    x = torch.randn(3, 4)
    exported = torch.export.export(nn.Sequential(MishModule()), (x,))
    assert "aten.exp" in str(exported.graph)
    assert "mish" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), ops.mish(x))


def test_onnx_gets_its_own_mish():
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            MishModule().eval(), (torch.randn(2, 3),), dynamo=True, verbose=False
        )
    assert [node.op_type for node in program.model_proto.graph.node] == ["Mish"]


class MishModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.mish(x)


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    x = torch.randn(4, 8, requires_grad=True)
    compiled = torch.compile(ops.mish, fullgraph=True)
    (slope,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(slope, slope_of(x.detach()))


@pytest.mark.gpu
@compiled_only
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
class TestOnlyOnAGPU:
    def test_more_than_2_to_the_31_elements(self):
        if torch.cuda.mem_get_info()[0] < 18 << 30:
            pytest.skip("needs 18 GB of GPU memory")
        x = torch.full((2**31 + 5,), -1.0, dtype=torch.bfloat16, device="cuda")
        x[-3:] = 2.0
        y = ops.mish(x)
        assert y[-6:].tolist() == [y[0].item()] * 3 + [y[-1].item()] * 3
        assert y[-1].item() == pytest.approx(1.944, rel=1e-2)

    def test_runs_on_the_current_stream(self):
        x, stream = torch.randn(1 << 22, device="cuda"), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            x.fill_(1.0)
            y = ops.mish(x)
        stream.synchronize()
        torch.testing.assert_close(y, torch.full_like(y, 0.86509839))

    def test_can_be_captured_in_a_graph(self):
        x = torch.zeros(1000, device="cuda")
        ops.mish(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = ops.mish(x)
        x.fill_(1.0)
        graph.replay()
        torch.testing.assert_close(y, torch.full_like(y, 0.86509839))

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
    def test_a_second_gpu(self):
        x = torch.randn(100, device="cuda:1")
        torch.testing.assert_close(ops.mish(x), functional.mish(x))
        assert torch.cuda.current_device() == 0
