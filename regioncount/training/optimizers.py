"""Build the optimizers and learning rate schedules that `regioncount.training.catalogue` names."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    StepLR,
)

from regioncount import registry
from regioncount.config import RunConfig
from regioncount.errors import InputError


def build_optimizer(model: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer of a model's parameters.

    Args:
        model: The network.
        options: The `name` of a registered optimizer, its `learning_rate` and `weight_decay`, and its other options, which
            are passed to its factory, except those that the training step uses.

    Returns:
        The optimizer.

    Raises:
        InputError: The factory of a plugin raised an exception or returned something else.
    """
    entry = registry.optimizers[options["name"]]
    other = {"name", "learning_rate", "weight_decay", *entry.traits.get("step_options", ())}
    extra = {key: value for key, value in options.items() if key not in other}
    if "betas" in extra:
        extra["betas"] = tuple(extra["betas"])
    if entry.traits.get("fused"):
        extra["fused"] = True
    weights = model.parameters()
    optimizer = entry.build(weights, lr=options["learning_rate"], weight_decay=options["weight_decay"], **extra)
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer={entry.name}: {type(optimizer).__name__} is not a torch.optim.Optimizer")
    return optimizer


def build_schedule(optimizer: Optimizer, options: Mapping[str, Any], epochs: int) -> LRScheduler:
    """Return a learning rate schedule. It is stepped once per epoch, as in the paper's code.

    Args:
        optimizer: The optimizer whose learning rate the schedule sets.
        options: The `name` of a registered schedule and its options, which are passed to its factory.
        epochs: The number of epochs of the run; the option `epochs` replaces it.

    Returns:
        The schedule.

    Raises:
        InputError: The factory of a plugin raised an exception or returned something else.
    """
    extra = {key: value for key, value in options.items() if key not in ("name", "epochs")}
    entry = registry.schedules[options["name"]]
    schedule = entry.build(optimizer, options.get("epochs", epochs), **extra)
    if not isinstance(schedule, LRScheduler):
        raise InputError(f"schedule={entry.name}: {type(schedule).__name__} is not a torch.optim.lr_scheduler.LRScheduler")
    if schedule.optimizer is not optimizer:
        raise InputError(f"schedule={entry.name}: it changes another optimizer than the one it was given")
    return schedule


def batch_size_at(config: RunConfig, epoch: int, train_size: int) -> int:
    """Return the number of images in the batches of an epoch.

    Args:
        config: The run's configuration.
        epoch: The epoch, counted from 1.
        train_size: The number of training images, to which a growing batch is limited.
    """
    batch_size = registry.schedules[config.schedule["name"]].traits.get("batch_size")
    if batch_size is None:
        return config.batch_size
    options = {key: value for key, value in config.schedule.items() if key != "name"}
    return min(registry.resolve(batch_size)(config.batch_size, epoch, **options), max(train_size, config.batch_size))


# The factories of the schedules take the optimizer, the number of epochs and the options of `catalogue`.


def constant(optimizer: Optimizer, epochs: int, warmup: int = 0) -> LRScheduler:
    """Return a schedule of a constant learning rate, which rises in the first `warmup` epochs as in `cosine`."""
    return _warmup(optimizer, warmup) if warmup else ConstantLR(optimizer, factor=1.0)


def cosine(optimizer: Optimizer, epochs: int, warmup: int = 0, final: float = 0.0) -> LRScheduler:
    """Return a schedule that lowers the learning rate to `final` along half a cosine.

    In each of the first `warmup` epochs, the learning rate is higher than in the one before by the same step; the last of
    them has the full learning rate.
    """
    if warmup == 0:
        return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=final)
    rise = _warmup(optimizer, warmup)
    fall = CosineAnnealingLR(optimizer, T_max=epochs - warmup, eta_min=final)
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def _warmup(optimizer: Optimizer, epochs: int) -> LRScheduler:
    return LinearLR(optimizer, start_factor=1 / epochs, total_iters=max(1, epochs - 1))


def step(optimizer: Optimizer, epochs: int, step_size: int, gamma: float) -> LRScheduler:
    """Return a schedule that multiplies the learning rate by gamma every `step_size` epochs."""
    return StepLR(optimizer, step_size, gamma)


def multistep(optimizer: Optimizer, epochs: int, milestones: Sequence[int], gamma: float) -> LRScheduler:
    """Return a schedule that multiplies the learning rate by gamma after each epoch in `milestones`."""
    return MultiStepLR(optimizer, milestones, gamma)


def exponential(optimizer: Optimizer, epochs: int, gamma: float) -> LRScheduler:
    """Return a schedule that multiplies the learning rate by gamma every epoch."""
    return ExponentialLR(optimizer, gamma)


def growing_batch(optimizer: Optimizer, epochs: int, step_size: int, gamma: float) -> LRScheduler:
    """Return a constant schedule, for a batch size that is divided by gamma every `step_size` epochs.

    This replaces a step schedule of the same options (Smith et al. 2018, "Don't Decay the Learning Rate, Increase the Batch
    Size"). `growing_batch_size` computes the batch size.
    """
    return ConstantLR(optimizer, factor=1.0)


def growing_batch_size(batch_size: int, epoch: int, step_size: int, gamma: float) -> int:
    """Return the number of images in the batches of an epoch, counted from 1: at most 2^62."""
    steps = (epoch - 1) // step_size
    return round(2.0 ** min(62.0, math.log2(batch_size) - steps * math.log2(gamma)))
