import os

# The suite runs many small models: threads cost more than they bring, and one thread is bit-identical everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
settings.register_profile("suite", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("suite")

# With few tests, but long ones: begun last, they would leave one core to wait for the other.
LONG = ("test_slurm.py", "test_sweep.py", "test_report.py", "test_runs.py", "test_exact.py", "test_jobs.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
