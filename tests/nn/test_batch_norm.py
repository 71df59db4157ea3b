"""BatchNormAct2d: equal to BatchNorm2d and then the activation, on one rank and on several."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detector import ops
from detector.nn import (
    ACTIVATIONS,
    BatchNormAct2d,
    BatchNormSettings,
    ConvNormAct,
    Mish,
    activation,
    synchronise_batch_norms,
)
from tests.ranks import meet, run_two


def layer(act: str, **parameters: float) -> ConvNormAct:
    return ConvNormAct(3, 4, 3, act=activation(act, **parameters), norm=BatchNormSettings())


@pytest.mark.parametrize("act", ["mish", "leaky_relu", "relu", "swish", "gelu", "srelu", "linear"])
def test_a_layer_is_convolution_batchnorm2d_activation(act):
    """Training and evaluation: outputs, gradients, running statistics and state-dict keys."""
    torch.manual_seed(0)
    ours = layer(act)
    theirs = nn.Sequential(
        copy.deepcopy(ours.conv), nn.BatchNorm2d(4, eps=1e-4, momentum=0.03), activation(act)(4)
    )
    assert ours.norm.state_dict().keys() == theirs[1].state_dict().keys()
    x = torch.randn(2, 3, 9, 7)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)
        for module in (ours, theirs):
            module.zero_grad()
            module(x).square().sum().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)
    for name, value in theirs[1].state_dict().items():
        torch.testing.assert_close(ours.norm.state_dict()[name], value)


@pytest.mark.parametrize("momentum", [0.1, None], ids=str)
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_options_are_those_of_batchnorm2d(momentum, tracked, affine):
    options = {"momentum": momentum, "track_running_stats": tracked, "affine": affine}
    ours, theirs = BatchNormAct2d(3, **options), nn.BatchNorm2d(3, **options)
    for _ in range(3):
        x = torch.randn(2, 3, 5, 4) + 1
        torch.testing.assert_close(ours(x, Mish()), nn.functional.mish(theirs(x)))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    x = torch.randn(2, 3, 5, 4)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, Mish()), nn.functional.mish(theirs(x)))
    torch.testing.assert_close(ours(x), theirs(x))


def test_an_activation_changed_later_is_the_one_that_runs():
    block = layer("mish")
    x = torch.randn(2, 3, 5, 5)
    block.act = nn.Identity()
    plain = block(x)
    block.act = nn.LeakyReLU(0.3)
    torch.testing.assert_close(block(x), nn.functional.leaky_relu(plain, 0.3))


def test_a_subclass_of_a_fused_activation_is_not_fused():
    class Doubled(Mish):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    norm, x = BatchNormAct2d(3), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(norm(x, Doubled()), 2 * norm(x, Mish()))


@pytest.mark.parametrize(
    "kind",
    ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"],
)
def test_every_kind_of_hook_on_the_activation_is_called(kind):
    block, called = layer("mish"), []
    getattr(block.act, f"register_{kind}")(lambda *_: called.append(1))
    block(torch.randn(2, 3, 5, 5)).sum().backward()
    assert called == [1]


def test_a_hook_on_the_activation_sees_its_input():
    block, seen = layer("mish"), []
    block.act.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    x = torch.randn(2, 3, 5, 5)
    y = block(x)
    ((before, after),) = seen
    torch.testing.assert_close(nn.functional.mish(before), after)
    assert after is y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_keeps_two_maps_for_the_backward_pass(dtype):
    """The inputs of the convolution and of BatchNorm; with torch's operators also that of Mish."""
    if not ops.has_kernel("batch_norm_act", torch.ones(1, dtype=dtype)):
        pytest.skip("the compiled kernels do not run here")

    def kept(layers: nn.Module) -> int:
        maps = set()
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: maps.add(t.data_ptr()) or t if t.numel() == x.numel() else t, lambda t: t
        )
        with hooks, torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = layers(x if dtype == torch.float32 else x.to(dtype))
        y.sum().backward()
        return len(maps)

    ours = [
        ConvNormAct(4, 4, 3, act=activation("mish"), norm=BatchNormSettings()) for _ in range(4)
    ]
    torchs = [
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Mish()) for _ in range(4)
    ]
    assert kept(nn.Sequential(*ours)) == 4 * 2
    assert kept(nn.Sequential(*torchs)) == 4 * 3


# ---- Several processes: each case runs on two of them, and here on the joined batch ----

CASES = {
    "float64, every activation": {
        "acts": sorted(ACTIVATIONS),
        "dtype": "float64",
        "counts": (3, 2),
    },
    "kernels, contiguous": {
        "acts": ["mish", "linear", "swish"],
        "dtype": "float32",
        "counts": (3, 1),
    },
    "kernels, channels_last": {
        "acts": ["mish", "leaky_relu"],
        "dtype": "float32",
        "counts": (1, 4),
        "channels_last": True,
    },
    "one process without an image": {
        "acts": ["mish", "gelu"],
        "dtype": "float64",
        "counts": (2, 0),
    },
    "the same with kernels": {"acts": ["mish"], "dtype": "float32", "counts": (0, 3)},
}


def train_two_steps(
    rank: int | None,
    *,
    acts: list[str],
    dtype: str,
    counts: tuple[int, int],
    channels_last: bool = False,
) -> dict[str, list[Tensor]]:
    """Outputs, input gradients, parameter gradients and statistics of conv-BatchNorm-activation.

    `rank` None computes all images in one process; any other its share of them.
    """
    here = slice(None)
    if rank is not None:
        here = slice(0, counts[0]) if rank == 0 else slice(counts[0], None)
    results = {}
    for act in acts:
        if act in ("rrelu",):  # draws for each element
            continue
        torch.manual_seed(1)
        norm, module = BatchNormAct2d(5, momentum=0.2), activation(act)(5)
        nn.init.uniform_(norm.weight, 0.5, 2.0), nn.init.uniform_(norm.bias, -0.5, 0.5)
        block = nn.ModuleList([norm, module]).to(getattr(torch, dtype))
        assert synchronise_batch_norms(block) == 1
        for _ in range(2):
            x = (3 * torch.randn(sum(counts), 5, 6, 7) + 2).to(norm.weight.dtype)
            upstream = torch.randn_like(x)[here]
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            x = x[here].requires_grad_()
            z = norm(x, module)
            z.backward(upstream)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        state = [norm.running_mean, norm.running_var]
        grads = [p.grad for p in block.parameters()]
        results[act] = [z.detach(), x.grad, *state, *grads]
    return results


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict[str, dict[str, list[Tensor]]]]:
    """The results of each of two ranks: case -> activation -> tensors."""
    return run_two("tests.nn.test_batch_norm", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one_on_the_joined_batch(two_ranks, case):
    options = CASES[case]
    tolerance = 1e-12 if options["dtype"] == "float64" else 2e-5
    for act, wanted in train_two_steps(None, **options).items():
        z, grad_x, mean, var, *grads = wanted
        first, second = (rank[case][act] for rank in two_ranks)

        def near(got: Tensor, expected: Tensor, what: str, act: str = act) -> None:
            scale = max(1.0, expected.abs().max().item())
            assert (got - expected).abs().max() <= tolerance * scale, (act, what)

        near(torch.cat([first[0], second[0]]), z, "outputs")
        near(torch.cat([first[1], second[1]]), grad_x, "gradients of the input")
        for own in (first, second):
            near(own[2], mean, "running mean")
            near(own[3], var, "running variance")
        assert torch.equal(first[2], second[2])  # to the bit, so that ranks never drift apart
        assert torch.equal(first[3], second[3])
        for i, expected in enumerate(grads):
            near(first[4 + i] + second[4 + i], expected, f"gradient of parameter {i}")


def test_a_second_derivative_over_several_ranks_is_refused(monkeypatch):
    norm, x = BatchNormAct2d(3), torch.randn(2, 3, 4, 4, requires_grad=True)
    monkeypatch.setattr(BatchNormAct2d, "_group", lambda self: "a group")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 1)
    (grad,) = torch.autograd.grad(norm(x, Mish()).sum(), x, create_graph=True)  # of one: as ever
    assert grad.requires_grad
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(
        torch.distributed, "all_gather", lambda parts, own, group: [p.copy_(own) for p in parts]
    )
    z = norm(x, Mish()).sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(z, x, create_graph=True)


def test_one_rank_may_evaluate_while_the_others_do_not(monkeypatch):
    """Even without running statistics: only training exchanges them."""
    norm = BatchNormAct2d(3, track_running_stats=False).eval()
    norm.sync = True
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda *_: pytest.fail("it waits"))
    norm(torch.randn(2, 3, 4, 4), Mish())


def test_synchronised_models_are_copied_and_run_alone():
    block = layer("mish")
    x = torch.randn(2, 3, 5, 5)
    expected = block(x)
    synchronise_batch_norms(block)
    torch.testing.assert_close(copy.deepcopy(block)(x), expected)  # no process group: no exchange


def main() -> None:
    """Runs as one of the two ranks."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(folder, rank)
    results = {case: train_two_steps(rank, **options) for case, options in CASES.items()}
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
