"""Ghost batch normalization (Hoffer et al. 2017, "Train longer, generalize better", algorithm 1)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def ghost_forwards(model: nn.Module, ghost_batch_size: int | None) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Return forward functions of batch normalizations that normalize each ghost batch by its own statistics.

    A batch is split into ghost batches of consecutive images; the last one may be smaller. The running statistics are
    updated once for each of them.

    Args:
        model: The network.
        ghost_batch_size: The number of images in a ghost batch; None for the whole batch.

    Returns:
        The forward functions by module, for training mode; none if `ghost_batch_size` is None.
    """
    if ghost_batch_size is None:
        return {}
    normalizations = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return {module: functools.partial(_forward, module, ghost_batch_size) for module in normalizations}


def _forward(module: _BatchNorm, ghost_batch_size: int, inputs: Tensor) -> Tensor:
    forward = type(module).forward
    return torch.cat([forward(module, images) for images in inputs.split(ghost_batch_size)])
