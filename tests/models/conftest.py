import pytest

from detector.models import VARIANTS
from tests.models.networks import shrink


@pytest.fixture
def small_variants(monkeypatch):
    """Every network of the table with few channels, for tests of its topology."""
    for arch, variant in list(VARIANTS.items()):
        monkeypatch.setitem(VARIANTS, arch, shrink(variant))
