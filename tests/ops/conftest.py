"""Fixtures of the operators' tests."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from detector.ops import _load


def decide() -> _load.Status:
    """Loads the kernels without the warning, which would be an error in the first test that runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return _load.status()


@pytest.fixture(scope="session", autouse=True)
def kernels() -> _load.Status:
    return decide()


CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    ],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request) -> Iterator[str]:
    """The whole test on this device: it is where new tensors are made."""
    with torch.device(request.param):
        yield request.param


@pytest.fixture
def compiled(kernels: _load.Status, request) -> None:
    """For tests of the compiled kernels themselves, on the device of the test."""
    device = request.getfixturevalue("device") if "device" in request.fixturenames else "cpu"
    status = kernels if device == "cpu" else _load.status(device)
    if not status.usable:
        pytest.skip(f"the compiled kernels do not run here: {status.reason}")


@pytest.fixture
def undecided() -> Iterator[None]:
    """As in a process that has not used the kernels yet; they are loaded again afterwards."""
    _load.status.cache_clear()
    yield
    _load.status.cache_clear()
    decide()
