"""Check the options of training against each other."""

from collections.abc import Iterable

from regioncount import registry
from regioncount.config.schemas import Pruning, RunConfig
from regioncount.errors import InputError

# Options without effect on models that are fitted in a single call.
EPOCH_OPTIONS = (
    *("optimizer", "schedule", "batch_size", "epochs", "stop", "snapshots"),
    *("augmentation", "ghost_batch_size", "pruning"),
)


def refuse_epoch_options(overrides: Iterable[str], model: str) -> None:
    """Refuse options of training in epochs for a model that is fitted in a single call.

    Args:
        overrides: The overrides of the command line, such as "epochs=5".
        model: The model's name.

    Raises:
        InputError: An override sets such an option.
    """
    for override in overrides:
        option = override.lstrip("+~").partition("=")[0]
        if option.partition(".")[0] in EPOCH_OPTIONS:
            raise InputError(
                f"{option}: model={model} is fitted in a single call, without epochs; omit it (model.NAME=VALUE sets the "
                "model's own options)"
            )


def check_training(config: RunConfig) -> None:
    """Check the schedule, ghost batches, pruning and augmentation of a run, and remove options that have no effect.

    Args:
        config: The configuration of a run that is trained in epochs.

    Raises:
        InputError: A cosine schedule is shorter than the training, a warm-up is not shorter than the schedule, a schedule
            would end above the learning rate, ghost batches are larger than batches, weights are pruned at no epoch of the
            run, the optimizer perturbs pruned weights, or the augmentation is one of images and the data are points.
    """
    _check_schedule(config)
    if config.ghost_batch_size is not None and config.ghost_batch_size > config.batch_size:
        raise InputError(f"ghost_batch_size={config.ghost_batch_size}: must be at most batch_size={config.batch_size}")
    if config.ghost_batch_size == config.batch_size and config.schedule.get("name") != "growing_batch":
        config.ghost_batch_size = None
    source = registry.datasets.get(config.dataset.name)
    if source is not None and source.traits.get("plane") and config.augmentation not in ("none", "mixup"):
        raise InputError(
            f"augmentation={config.augmentation}: dataset={source.name} has points, not images; choose none or mixup"
        )
    if config.pruning.sparsity == 0:
        config.pruning = Pruning()
    elif config.pruning.epoch is None:
        raise InputError(f"pruning.epoch is missing: give the epoch, from 0 to {config.epochs}, after which to prune")
    elif config.pruning.epoch > config.epochs:
        raise InputError(f"pruning.epoch={config.pruning.epoch}: the last epoch is {config.epochs}")
    else:
        optimizer = registry.optimizers.get(config.optimizer["name"])
        if optimizer is not None and "step" in optimizer.traits:
            raise InputError(
                f"pruning.sparsity={config.pruning.sparsity}: optimizer={optimizer.name} has a training step of its own, "
                "which would use the pruned weights; choose another optimizer or pass pruning.sparsity=0"
            )


def _check_schedule(config: RunConfig) -> None:
    schedule, epochs = config.schedule, config.epochs
    if schedule.get("name") not in ("constant", "cosine"):
        return
    length = schedule.get("epochs", epochs)
    if length < epochs:
        raise InputError(f"schedule.epochs={length}: must be at least epochs={epochs}")
    if (warmup := schedule.get("warmup", 0)) >= max(1, length):
        raise InputError(f"schedule.warmup={warmup}: must be below the {length} epochs of the schedule")
    learning_rate = config.optimizer.get("learning_rate", 0.0)
    if (final := schedule.get("final", 0.0)) > learning_rate:
        raise InputError(f"schedule.final={final}: must be at most optimizer.learning_rate={learning_rate}")
    if warmup == 1 and schedule["name"] == "constant":
        schedule.pop("warmup")  # the first epoch has the full learning rate
    if length == epochs:
        schedule.pop("epochs", None)
