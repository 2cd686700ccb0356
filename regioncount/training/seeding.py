"""Seeds: one for the initial weights and one for each epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def initialize(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a model whose initial weights depend only on the seed. The caller's random state does not change.

    Args:
        build: A function that builds the model on the CPU.
        seed: The run's seed.

    Returns:
        The model.
    """
    with seeded(epoch_seed(seed, 0), torch.device("cpu")):
        return build()


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch of a run. Epoch 0 is the initialization."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore those of the CPU and of `device` afterwards."""
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
