"""BatchNorm + activation against torch's operators, on each device and on any number of threads."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from detector import ops
from detector.ops import _load

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# odd sizes; fewer and more channels than lanes; maps of one tile and of several; single pixels
SHAPES = [(2, 3, 5, 7), (3, 16, 33, 40), (2, 300, 3, 4), (1, 2, 190, 201), (6, 8, 1, 1)]

ACTIVATIONS = {
    "mish": (ops.MISH, functional.mish),
    "leaky_relu": (ops.leaky_relu(0.1), lambda y: functional.leaky_relu(y, 0.1)),
    "relu": (ops.leaky_relu(0.0), functional.relu),
    "swish": (ops.swish(1.0), functional.silu),
    "swish of beta 1.7": (ops.swish(1.7), lambda y: y * torch.sigmoid(1.7 * y)),
    "none": (ops.IDENTITY, lambda y: y),
}

MISH = {"activation": int(ops.ActivationCode.MISH), "parameter": 0.0}  # keywords of the operators

compiled_only = pytest.mark.usefixtures("compiled")
pytestmark = pytest.mark.usefixtures("device")


def module(channels: int, **options: float) -> nn.BatchNorm2d:
    """A BatchNorm2d whose parameters and buffers are not those of a new one."""
    norm = nn.BatchNorm2d(channels, **options)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.2, 2.0)
    return norm


def fused(
    norm: nn.BatchNorm2d,
    x: Tensor,
    activation: ops.Activation = ops.MISH,
    *,
    training: bool = True,
) -> Tensor:
    return ops.batch_norm_act(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        activation,
        momentum=norm.momentum,
        eps=norm.eps,
        training=training,
    )


def channel_values(values: Tensor) -> dict[str, Tensor]:
    """The same values [C] for each argument of an operator that has one per channel."""
    return dict.fromkeys(("mean", "rstd", "weight", "bias"), values)


def draw(shape: tuple[int, ...], memory_format: torch.memory_format) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(7)
    x = 2 * torch.randn(shape, generator=generator, device="cpu") + 0.5
    return x.to(torch.get_default_device()).contiguous(memory_format=memory_format)


def assert_near(got: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    """Equal to `tolerance` of the largest value: sums cancel, so small values are off by more."""
    assert got.shape == expected.shape
    scale = expected.double().abs().max().clamp_min(1e-3).item()
    torch.testing.assert_close(got.double(), expected.double(), rtol=0, atol=tolerance * scale)


def one_step_is_that_of_float64(
    activation: str, shape: tuple[int, ...], memory_format: str, *, training: bool
) -> None:
    act, exact_act = ACTIVATIONS[activation]
    torch.manual_seed(0)
    norm = module(shape[1], eps=1e-3, momentum=0.03).train(training)
    exact = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.03).double().train(training)
    exact.load_state_dict(norm.state_dict())
    x = draw(shape, FORMATS[memory_format]).requires_grad_()
    wide = x.detach().double().requires_grad_()
    upstream = torch.randn(shape)

    z = fused(norm, x, act, training=training)
    grads = torch.autograd.grad(z, (x, norm.weight, norm.bias), upstream)
    expected = exact_act(exact(wide))
    wanted = torch.autograd.grad(expected, (wide, exact.weight, exact.bias), upstream.double())

    assert z.stride() == x.stride()
    assert_near(z, expected)
    for got, value in zip(grads, wanted, strict=True):
        assert_near(got, value, 1e-5)
    assert_near(norm.running_mean, exact.running_mean)
    assert_near(norm.running_var, exact.running_var)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_step_is_that_of_batchnorm2d_in_float64(shape, memory_format):
    one_step_is_that_of_float64("mish", shape, memory_format, training=True)


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_in_training_and_with_frozen_statistics(
    activation, memory_format, training
):
    one_step_is_that_of_float64(activation, (3, 16, 33, 40), memory_format, training=training)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_channels_last_stays_channels_last(memory_format):
    x = draw((2, 4, 6, 5), FORMATS[memory_format]).requires_grad_()
    z = fused(module(4), x)
    z.sum().backward()  # a gradient of strides 0
    assert z.is_contiguous(memory_format=FORMATS[memory_format])
    assert x.grad.is_contiguous(memory_format=FORMATS[memory_format])


def test_gradient_in_the_other_memory_format():
    x = draw((2, 4, 6, 5), torch.contiguous_format).requires_grad_()
    upstream = torch.randn(2, 4, 6, 5)
    norm = module(4)
    (same,) = torch.autograd.grad(fused(norm, x), x, upstream)
    other = upstream.contiguous(memory_format=torch.channels_last)
    (got,) = torch.autograd.grad(fused(norm, x), x, other)
    torch.testing.assert_close(got, same)


def test_sliced_and_transposed_maps():
    norm = module(3)
    maps = draw((4, 8, 6, 5), torch.contiguous_format)
    for x in (maps[:, 2:5], maps[:, :3].transpose(2, 3), maps.permute(0, 2, 3, 1)[:, :3]):
        expected = fused(norm, x.contiguous())
        torch.testing.assert_close(fused(norm, x), expected)


@compiled_only  # torch's own loses it in channels_last
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_large_mean_does_not_distort_the_variance(memory_format):
    norm = module(5)
    x = (1e4 + draw((4, 5, 40, 40), torch.contiguous_format)).contiguous(
        memory_format=FORMATS[memory_format]
    )
    norm.momentum = 1.0
    z = fused(norm, x)
    var, mean = torch.var_mean(x.double(), (0, 2, 3))
    torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-7, atol=0)
    exact = functional.batch_norm(
        x.double(), None, None, norm.weight.double(), norm.bias.double(), True
    )
    # the mean itself is a float: 1e4 rounds to 5e-4, here with a deviation of 2 and weights up to 2
    torch.testing.assert_close(z.double(), functional.mish(exact), rtol=0, atol=2e-3)


@compiled_only
@pytest.mark.parametrize("memory_format", FORMATS)
def test_one_outlier_does_not_distort_the_variance(memory_format):
    """The very first element, which a kernel may use as the pivot."""
    x = draw((2, 3, 64, 64), FORMATS[memory_format])
    x[0, :, 0, 0] = 1e6
    _, var = torch.ops.detector_ops.bn_stats(x)
    exact = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(var.double(), exact, rtol=1e-4, atol=0)


@compiled_only
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(3, 16, 65, 67), (2, 520, 11, 13)], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(shape, memory_format):
    x = draw(shape, FORMATS[memory_format]).requires_grad_()
    upstream = torch.randn_like(x)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            norm = module(shape[1])
            z = fused(norm, x)
            grads = torch.autograd.grad(z, (x, norm.weight, norm.bias), upstream)
            results.append((z, *grads, norm.running_mean, norm.running_var))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    norm = module(3).eval()
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    x = draw((2, 3, 4, 4), torch.contiguous_format)
    torch.testing.assert_close(fused(norm, x, training=False), functional.mish(norm(x)))
    assert all(torch.equal(value, state[name]) for name, value in norm.state_dict().items())


@compiled_only
def test_large_values_of_swish():
    """sigmoid is 1 there; its rounding error must not be multiplied by them."""
    x = torch.tensor([1e3, 1e6, 1e30, -1e3, -1e30, 20.5, 19.5]).view(1, 1, 7, 1).requires_grad_()
    one, zero = torch.ones(1), torch.zeros(1)
    for beta in (1.0, 2.0):
        z = ops.batch_norm_act(x, one, zero, zero, one, ops.swish(beta), eps=0.0, training=False)
        (slope,) = torch.autograd.grad(z.sum(), x)
        wide = x.detach().double().requires_grad_()
        exact = wide * torch.sigmoid(beta * wide)
        torch.testing.assert_close(z.double(), exact, rtol=1e-6, atol=1e-6)
        expected = torch.autograd.grad(exact.sum(), wide)[0]
        torch.testing.assert_close(slope.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at first use
def test_forward_mode_derivatives_equal_torchs_operators():
    norm, x = module(2).eval(), draw((2, 2, 3, 4), torch.contiguous_format)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.randn_like(x))
        pairs = [
            (ops.mish(dual), functional.mish(dual)),
            (
                fused(norm, dual, training=False),
                functional.mish(nn.BatchNorm2d.forward(norm, dual)),
            ),
        ]
        for got, expected in pairs:
            tangents = [torch.autograd.forward_ad.unpack_dual(y).tangent for y in (got, expected)]
            torch.testing.assert_close(*tangents)


def test_without_affine_or_running_statistics():
    x = draw((2, 3, 4, 4), torch.contiguous_format).requires_grad_()
    expected = functional.mish(functional.batch_norm(x, None, None, None, None, True))
    weight, bias = torch.ones(3), torch.zeros(3)
    for parameters in ((None, None), (weight, None), (weight, bias)):
        got = ops.batch_norm_act(x, *parameters, None, None, ops.MISH)
        torch.testing.assert_close(got, expected)
    frozen = ops.batch_norm_act(x, None, None, None, None, ops.MISH, training=False)
    torch.testing.assert_close(frozen, expected)  # with nothing to freeze it is the batch's own


@compiled_only
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_maps_are_rounded_only_on_the_way_out(shape, memory_format, dtype):
    """Parameters and statistics in float32, as under autocast; against float32 on the same maps."""
    norm = module(shape[1])
    x = draw(shape, FORMATS[memory_format]).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    upstream = torch.randn(shape).to(dtype)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    z = fused(norm, x)
    grads = torch.autograd.grad(z, (x, norm.weight, norm.bias), upstream)
    statistics = norm.running_mean.clone(), norm.running_var.clone()
    norm.load_state_dict(before)
    expected = fused(norm, wide)
    wanted = torch.autograd.grad(expected, (wide, norm.weight, norm.bias), upstream.float())

    assert z.dtype == x.dtype
    assert z.stride() == x.stride()
    wanted_z = expected.to(dtype)
    if z.is_cuda:  # vectors of 8 and of 4 add up in another order: 1e-7, which moves few roundings
        torch.testing.assert_close(z, wanted_z, rtol=torch.finfo(dtype).eps, atol=1e-6)
        assert (z != wanted_z).float().mean() < 0.01
        assert_near(statistics[0], norm.running_mean, 1e-6)
        assert_near(statistics[1], norm.running_var, 1e-6)
    else:
        assert torch.equal(z, wanted_z)
        assert torch.equal(statistics[0], norm.running_mean)
        assert torch.equal(statistics[1], norm.running_var)
    assert_near(grads[0], wanted[0], 2**-7)
    assert_near(grads[1], wanted[1], 1e-6)
    assert_near(grads[2], wanted[2], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes_equal_torchs_operators(dtype):
    x = draw((2, 3, 4, 4), torch.contiguous_format).to(dtype)
    norm = module(3).to(torch.float64 if dtype == torch.float64 else torch.float32)
    expected = functional.mish(nn.BatchNorm2d.forward(norm, x))
    torch.testing.assert_close(fused(norm, x), expected)


def test_one_value_a_channel_is_refused_as_torch_refuses_it():
    x = torch.ones(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused(module(3), x)


def test_nan_spreads_to_its_channel_only():
    x = draw((2, 3, 4, 4), torch.contiguous_format)
    x[0, 1, 2, 2] = torch.nan
    bad = fused(module(3), x).isnan().flatten(2).all(2)
    assert bad.all(0).tolist() == [False, True, False]


def test_frozen_parts_get_no_gradient():
    norm = module(4)
    x = draw((2, 4, 5, 5), torch.contiguous_format)
    fused(norm, x).sum().backward()  # x needs none: the first layer of a network
    expected_norm = nn.BatchNorm2d(4)
    expected_norm.load_state_dict(norm.state_dict())
    functional.mish(expected_norm(x)).sum().backward()
    torch.testing.assert_close(norm.weight.grad, expected_norm.weight.grad, rtol=1e-4, atol=1e-4)
    norm.requires_grad_(False)
    y = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(fused(norm, y).square().sum(), y)
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("columns", [slice(None), slice(0, None, 2)], ids=["whole", "sliced"])
def test_second_derivative_is_that_of_torchs_operators(columns):
    torch.manual_seed(0)
    norm = module(2)

    def penalty(function) -> Tensor:
        x = draw((2, 2, 3, 4), torch.contiguous_format).requires_grad_()
        value = function(x[..., columns]).pow(2).sum()
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(grad.pow(2).sum(), (x, norm.weight))]
        )

    got = penalty(lambda x: fused(norm, x))
    expected = penalty(lambda x: functional.mish(nn.BatchNorm2d.forward(norm, x)))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_only_x_is_kept_of_the_maps():
    kept: list[Tensor] = []
    x = draw((2, 4, 8, 8), torch.contiguous_format).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused(module(4), x)
    maps = [t for t in kept if t.dim() == 4]
    if ops.has_kernel("batch_norm_act", x):
        assert [t.data_ptr() for t in maps] == [x.data_ptr()]


@compiled_only
@pytest.mark.parametrize("memory_format", FORMATS)
def test_operators_keep_torchs_contract(memory_format):
    x = draw((2, 3, 4, 5), FORMATS[memory_format])
    channel = torch.rand(3) + 0.5
    given = {"x": x, **channel_values(channel), **MISH}
    backward = {"grad": x, **given, "grad_x": x.clone()}
    arguments = {
        "bn_stats": {"x": x},
        "bn_act_apply": given,
        "bn_act_backward_reduce": backward,
        "bn_act_backward_apply_": {
            **backward,
            "sum_dy": channel,
            "sum_dy_xhat": channel,
            "count": 40,
        },
    }
    for name, values in arguments.items():
        torch.library.opcheck(getattr(torch.ops.detector_ops, name).default, (), values)


@compiled_only
def test_operators_refuse_what_they_cannot_do():
    kernels, x, channel = torch.ops.detector_ops, torch.randn(2, 3, 4, 4), torch.ones(3)
    for wrong in (x.double(), x[:, :, ::2], x.flatten(2), x[:0]):
        with pytest.raises(RuntimeError):
            kernels.bn_stats(wrong)
    values = channel_values(channel)
    with pytest.raises(RuntimeError, match="contiguous float32 values"):
        kernels.bn_act_apply(x, **{**values, "bias": torch.ones(4)}, **MISH)
    with pytest.raises(RuntimeError, match="unknown activation code 9"):
        kernels.bn_act_apply(x, **values, activation=9, parameter=0.0)
    with pytest.raises(RuntimeError, match="grad and grad_x need the shape"):
        kernels.bn_act_backward_reduce(
            grad=x.half(), x=x, **values, **MISH, grad_x=torch.empty_like(x)
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
class TestOnlyOnAGPU:
    @pytest.fixture
    def device(self, kernels) -> str:
        """Without the default device of the other tests, which is on the CPU first."""
        if not _load.status("cuda").usable:
            pytest.skip("the compiled kernels do not run here")
        return "cuda"

    def test_more_than_2_to_the_31_elements(self):
        if torch.cuda.mem_get_info()[0] < 20 << 30:
            pytest.skip("needs 20 GB of GPU memory")
        x = torch.ones((3, 2, 19000, 19000), dtype=torch.bfloat16, device="cuda")
        x[-1, -1] = 3.0
        mean, var = torch.ops.detector_ops.bn_stats(x)
        torch.testing.assert_close(mean.cpu(), torch.tensor([1.0, 5 / 3]))
        torch.testing.assert_close(var.cpu(), torch.tensor([0.0, 8 / 9]))
        ones = torch.ones(2, device="cuda")
        z = torch.ops.detector_ops.bn_act_apply(
            x,
            mean=0 * ones,
            rstd=ones,
            weight=ones,
            bias=0 * ones,
            activation=int(ops.ActivationCode.LEAKY_RELU),
            parameter=1.0,
        )
        assert torch.equal(z[-1, -1, -1, -3:], x[-1, -1, -1, -3:])

    @pytest.mark.parametrize("memory_format", FORMATS)
    def test_bits_are_the_same_in_every_run(self, memory_format):
        x = draw((4, 48, 61, 67), FORMATS[memory_format]).cuda().requires_grad_()
        norm, upstream = module(48).cuda(), torch.randn_like(x)
        runs = [
            torch.autograd.grad(fused(norm, x), (x, norm.weight, norm.bias), upstream)
            for _ in range(5)
        ]
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))

    def test_a_training_step_can_be_captured_in_a_graph(self):
        norm = module(8).cuda()
        x = torch.zeros(2, 8, 16, 16, device="cuda", requires_grad=True)

        def step() -> tuple[Tensor, Tensor]:
            z = fused(norm, x)
            return z, torch.autograd.grad(z.square().sum(), x)[0]

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z, grad = step()
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        graph.replay()
        expected = step()
        assert torch.equal(z, expected[0])
        assert torch.equal(grad, expected[1])

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
    def test_a_second_gpu(self):
        x, norm = torch.randn(2, 3, 5, 7, device="cuda:1"), module(3).to("cuda:1")
        expected = functional.mish(
            functional.batch_norm(x, None, None, norm.weight, norm.bias, True)
        )
        torch.testing.assert_close(fused(norm, x), expected, atol=1e-5, rtol=1e-4)
        assert torch.cuda.current_device() == 0
