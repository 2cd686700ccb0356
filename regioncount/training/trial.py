"""Check, before training, that a network can be trained as configured."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regioncount import registry
from regioncount.config import RunConfig
from regioncount.data.augmentation import build_augmentation
from regioncount.data.dataset import Dataset
from regioncount.errors import InputError, one_line
from regioncount.models import kinds
from regioncount.models.networks import build_for
from regioncount.regions.evaluation import evaluation_mode
from regioncount.training.ghost_batches import ghost_forwards
from regioncount.training.optimizers import build_optimizer, build_schedule
from regioncount.training.pruning import prunable_weights
from regioncount.training.seeding import initialize, seeded
from regioncount.training.steps import build_training_step

TRIAL_IMAGES = 64


def check_layers(config: RunConfig, dataset: Dataset) -> None:
    """Check that the network has the layers that ghost batches and pruning act on.

    Args:
        config: The configuration of a run that is trained in epochs.
        dataset: Its data set.

    Raises:
        InputError: It has none, or weights that cannot be pruned.
    """
    if config.ghost_batch_size is None and config.pruning.epoch is None:
        return
    network, name = build_for(config.model, dataset), config.model["name"]
    if config.ghost_batch_size is not None and not ghost_forwards(network, config.ghost_batch_size):
        raise InputError(
            f"ghost_batch_size={config.ghost_batch_size}: model={name} has no batch normalization; "
            "pass ghost_batch_size=null"
        )
    if config.ghost_batch_size is not None and _normalizes_merged_dimensions(network, dataset):
        raise InputError(
            f"ghost_batch_size={config.ghost_batch_size}: a batch normalization of model={name} has inputs of another "
            "length than the batch, which cannot be split by images; pass ghost_batch_size=null"
        )
    if config.pruning.epoch is not None:
        try:
            reason = "" if prunable_weights(network) else "it has no convolutions or linear layers"
        except InputError as error:
            reason = str(error)
        if reason:
            raise InputError(f"pruning.sparsity={config.pruning.sparsity}: model={name}: {reason}; pass pruning.sparsity=0")


def _normalizes_merged_dimensions(network: nn.Module, dataset: Dataset) -> bool:
    """Return whether the inputs of a batch normalization are not one for each image."""
    lengths: list[int] = []
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0])))
    with torch.no_grad(), evaluation_mode(network):
        network(torch.zeros(3, dataset.in_channels, *dataset.image_size))
    return set(lengths) != {3}


def try_training_step(config: RunConfig, dataset: Dataset) -> None:
    """Compute one training step on the CPU, if a plugin supplies the model, optimizer, schedule or augmentation.

    Args:
        config: The configuration of a run that is trained in epochs.
        dataset: Its data set, on the CPU.

    Raises:
        InputError: A part cannot be built, or the step fails.
    """
    entries = (
        kinds.entry(config.model),
        registry.optimizers[config.optimizer["name"]],
        registry.schedules[config.schedule["name"]],
        registry.augmentations[config.augmentation],
    )
    supplied = [entry for entry in entries if entry.plugin]
    if not supplied:
        return
    device = torch.device("cpu")
    model = initialize(lambda: build_for(config.model, dataset), config.seed)
    optimizer = build_optimizer(model, config.optimizer)
    schedule = build_schedule(optimizer, config.schedule, config.epochs)
    augment = build_augmentation(config.augmentation, dataset)
    indices = torch.arange(min(config.batch_size, TRIAL_IMAGES, len(dataset.train)))
    images, labels = dataset.train.take(indices), dataset.train.labels[indices]
    try:
        step = build_training_step(model, optimizer, config, device=device, precision="float32", compiled=False)
        model.train()
        with step.context(), seeded(config.seed, device):
            step(*augment(images, labels, torch.Generator().manual_seed(config.seed)))
            optimizer.step()
        schedule.step()
    except InputError:
        raise
    except Exception as error:
        names = ", ".join(f"{entry.kind}={entry.name}" for entry in supplied)
        raise InputError(f"{names}: a training step fails ({one_line(f'{type(error).__name__}: {error}')})") from error
