"""Fixtures of the tests of region counts."""

from functools import lru_cache

import pytest

from regioncount.regions import bounds, exact, triangles
from regioncount.regions.piecewise import trace


@pytest.fixture(scope="module")
def one_trace_per_model():
    """Trace a model once if a test counts its regions twice: for small networks, tracing takes longer than counting."""
    cached = lru_cache(maxsize=1)(trace)
    with pytest.MonkeyPatch.context() as patch:
        for module in (bounds, exact, triangles):
            patch.setattr(module, "trace", cached)
        yield
