"""Fixtures of the operators' tests."""

import warnings
from collections.abc import Iterator

import pytest

from detector.ops import _load


def decide() -> _load.Status:
    """Without the warning, which would be an error of whichever test came first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return _load.status()


@pytest.fixture(scope="session", autouse=True)
def kernels() -> _load.Status:
    return decide()


@pytest.fixture
def compiled(kernels: _load.Status) -> None:
    """For tests of the compiled kernels themselves."""
    if not kernels.usable:
        pytest.skip(f"the compiled kernels do not run here: {kernels.reason}")


@pytest.fixture
def undecided() -> Iterator[None]:
    """As in a process that has not used the kernels yet; decided anew afterwards."""
    _load.status.cache_clear()
    yield
    _load.status.cache_clear()
    decide()
