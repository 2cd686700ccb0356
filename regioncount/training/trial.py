"""Try a training step before training, if a plugin supplies a part of it."""

import torch

from regioncount import registry
from regioncount.config import RunConfig
from regioncount.data.augmentation import build_augmentation, check_augmentation
from regioncount.data.dataset import Dataset
from regioncount.errors import InputError, one_line
from regioncount.models import kinds
from regioncount.models.networks import build_for
from regioncount.training.optimizers import build_optimizer, build_schedule
from regioncount.training.seeding import initialize, seeded
from regioncount.training.steps import build_training_step

TRIAL_IMAGES = 64


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
    check_augmentation(config.augmentation, dataset)
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
