import os

# The suite runs many small models: threads cost more than they bring, and one thread is bit-identical everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
settings.register_profile("suite", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("suite")
