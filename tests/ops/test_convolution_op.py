"""The gradient of 3x3 weights against torch's operators in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from detector import ops
from detector.nn import Conv2d
from detector.ops import _load, conv_gradient

LAST = torch.channels_last
# (images, in, out, height, width, stride): odd sizes, fewer channels than a tile has, maps that are
# narrower than the kernel, blocks of several images and of some rows of one
SHAPES = [
    (2, 3, 8, 9, 7, 1),
    (3, 5, 6, 8, 10, 2),
    (2, 16, 12, 7, 5, 2),
    (1, 1, 1, 1, 1, 1),
    (2, 9, 4, 1, 2, 2),
    (23, 8, 4, 6, 5, 1),
    (2, 40, 36, 50, 41, 1),
    (1, 24, 8, 151, 130, 2),
]


@pytest.fixture
def kernel(compiled, monkeypatch) -> None:
    """The kernel whatever the CPU; a library from before it existed has to be built again."""
    assert not _load._explain_stale("conv3x3_grad_weight")
    monkeypatch.setattr(conv_gradient, "_is_faster_here", lambda: True)


def draw(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight, and gradient of the output."""
    images, cin, cout, height, width, stride = shape
    torch.manual_seed(sum(shape))
    x = torch.randn(images, cin, height, width).contiguous(memory_format=LAST)
    weight = torch.randn(cout, cin, 3, 3).contiguous(memory_format=LAST)
    grad = torch.randn(images, cout, (height - 1) // stride + 1, (width - 1) // stride + 1)
    return x.requires_grad_(), weight.requires_grad_(), grad.contiguous(memory_format=LAST)


def find_gradients(convolve, x: Tensor, weight: Tensor, grad: Tensor, stride: int) -> list[Tensor]:
    y = convolve(x, weight, None, (stride, stride), (1, 1))
    return [y, *torch.autograd.grad(y, (x, weight), grad)]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_float64(shape):
    x, weight, grad = draw(shape)
    ours = find_gradients(ops.conv2d, x, weight, grad, shape[-1])
    doubles = (each.detach().double().requires_grad_() for each in (x, weight, grad))
    exact = find_gradients(functional.conv2d, *doubles, shape[-1])
    for got, expected in zip(ours, exact, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6 * scale)
    assert ours[2].is_contiguous(memory_format=LAST)


@pytest.mark.usefixtures("kernel")
def test_bits_do_not_depend_on_threads():
    x, _, grad = draw(SHAPES[-2])
    results = []
    threads = torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(torch.ops.detector_ops.conv3x3_grad_weight(grad, x.detach(), 1))
    torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.usefixtures("kernel")
def test_layouts_of_gradient_and_weight():
    """sum() passes a gradient with strides 0; the weight's gradient has the weight's strides."""
    x, weight, _ = draw(SHAPES[0])
    weight = weight.detach().contiguous().requires_grad_()
    (ours,) = torch.autograd.grad(ops.conv2d(x, weight, padding=(1, 1)).sum(), weight)
    (expected,) = torch.autograd.grad(functional.conv2d(x, weight, padding=1).sum(), weight)
    torch.testing.assert_close(ours, expected)
    assert ours.stride() == weight.stride()


@pytest.mark.usefixtures("kernel")
def test_second_derivatives():
    x, weight, _ = draw((1, 2, 3, 4, 5, 2))

    def penalty(convolve) -> Tensor:
        y = convolve(x, weight, None, (2, 2), (1, 1)).square().sum()
        return torch.autograd.grad(y, weight, create_graph=True)[0].square().sum()

    ours, expected = (
        torch.autograd.grad(penalty(f), (x, weight)) for f in (ops.conv2d, functional.conv2d)
    )
    torch.testing.assert_close(ours, expected)


@pytest.mark.usefixtures("kernel")
def test_operator_is_registered_for_the_compiler():
    x, _, grad = draw(SHAPES[1])
    op = torch.ops.detector_ops.conv3x3_grad_weight
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(op, (grad, x.detach(), 2), test_utils=checks)
    with pytest.raises(RuntimeError, match="not that of a 3x3 convolution"):
        op(grad, x.detach(), 1)
    with pytest.raises(RuntimeError, match="channels_last"):
        op(grad.contiguous(), x.detach(), 2)


@pytest.mark.usefixtures("kernel")
def test_who_uses_the_kernel(monkeypatch):
    """3x3 convolutions of float32 maps in channels_last; the others are torch's own."""
    x, weight, _ = draw(SHAPES[0])

    def is_ours(x: Tensor = x, weight: Tensor = weight, **settings) -> bool:
        y = ops.conv2d(x, weight, **{"padding": (1, 1), **settings})
        return type(y.grad_fn).__name__ == "_Conv3x3Backward"

    assert is_ours()
    assert not is_ours(x=x.detach().contiguous())
    assert not is_ours(padding=(0, 0))
    assert not is_ours(bias=torch.zeros(8))
    assert not is_ours(weight=weight[..., :1, :1], padding=(0, 0))
    assert not is_ours(weight=weight.detach())
    assert not is_ours(x=x[:0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_ours()
    with torch.no_grad():
        assert not is_ours()
    # a map of one pixel, which is in channels_last, on a device without autocast
    pixel = torch.zeros(1, weight.shape[1], 1, 1, device="meta")
    assert not is_ours(x=pixel, weight=weight.detach().to("meta").requires_grad_())
    module = Conv2d(3, 8, 3, padding=1, bias=False)
    assert type(module(x).grad_fn).__name__ == "_Conv3x3Backward"
    monkeypatch.setattr(conv_gradient, "_is_faster_here", lambda: False)
    assert not is_ours()


@pytest.mark.usefixtures("kernel")
def test_a_library_from_before_is_explained(monkeypatch):
    stale = "its library is older than this code"
    monkeypatch.setattr(_load, "_explain_stale", lambda op: stale)
    assert _load.explain_fallback("conv3x3_grad_weight", "cpu", torch.float32) == stale
    x, weight, _ = draw(SHAPES[0])
    assert type(ops.conv2d(x, weight, padding=(1, 1)).grad_fn).__name__ == "ConvolutionBackward0"
