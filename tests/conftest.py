import os

# The tests run many small models: one thread is faster than several, and its results do not depend on the number of
# cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
settings.register_profile("suite", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("suite")

# Files with few but long tests start first, so that all workers finish at about the same time.
LONG = (
    "test_slurm.py",
    "test_recipes.py",
    "test_packaging.py",
    "test_sweep.py",
    "test_report.py",
    "test_runs.py",
    "test_exact.py",
    "test_runner.py",
)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run slow tests, as with CI=true")


def pytest_collection_modifyitems(config, items):
    if not (config.getoption("--slow") or os.environ.get("CI")):
        skip = pytest.mark.skip(reason="slow: pass --slow or set CI=true")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
