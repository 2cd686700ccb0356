"""The training loop.

The random numbers of an epoch follow from the run's seed and the epoch's number. An epoch therefore depends only on the
weights and the state of the optimizer and schedule at its start: a run resumed from a checkpoint computes exactly what the
uninterrupted run computes, and no random state is stored.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regioncount import data
from regioncount.config import RunConfig
from regioncount.data.augmentation import build_augmentation, mixes, training_batches
from regioncount.errors import InputError, one_line
from regioncount.regions.evaluation import as_float64, float64_device, training_layout
from regioncount.training.optimizers import batch_size_at, build_optimizer, build_schedule
from regioncount.training.progress import progress_bar
from regioncount.training.pruning import prunable_weights, prune, zero_pruned
from regioncount.training.seeding import epoch_seed, seeded
from regioncount.training.steps import build_training_step
from regioncount.training.stopping import active_stop, evaluate_for_stopping, must_stop, near_target

# What a wrong checkpoint raises; RuntimeError if the shape of a tensor differs.
CONTENT_ERRORS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class UnusableCheckpoint(InputError):
    """The content of a checkpoint is not the state of the run that is to be resumed."""


def fit(
    model: nn.Module,
    dataset: data.Dataset,
    config: RunConfig,
    *,
    device: torch.device,
    precision: str,
    compiled: bool = False,
    checkpoint: dict | None = None,
    on_epoch: Callable[[dict, Callable[[], dict]], None] = lambda row, state: None,
) -> list[dict]:
    """Train a model in place with the cross-entropy loss.

    Training ends after `config.epochs` epochs, when the stop rule is met, or when the loss is not finite.

    Args:
        model: The network. It is moved to `device`.
        dataset: The data set, already on `device`.
        config: The run's configuration.
        device: The device of training.
        precision: "float32" (IEEE, without TF32) or "bfloat16" (autocast).
        compiled: Whether full batches are computed with torch.compile. Later runs with the same network and batch size
            reuse its cache on disk.
        checkpoint: The value of `state()` in an earlier call, from which training resumes.
        on_epoch: Called as `on_epoch(row, state)` after every epoch, with the epoch's row of the history. `state()` returns
            a checkpoint of tensors and plain values. Its tensors are not copies: the next epoch changes them.

    Returns:
        The history, one row per epoch, with the columns

        - epoch, counted from 1, and its learning_rate;
        - train_loss and running_accuracy: averages over the epoch's images, in training mode;
        - train_accuracy and stop_loss: of the whole training set at the end of the epoch, in evaluation mode and float32.
          Without an evaluation for the stop rule, train_accuracy is NaN and stop_loss is missing;
        - seconds: the duration of the epoch;
        - batch_size: that of the epoch, if the schedule changes it.

    Raises:
        UnusableCheckpoint: The checkpoint is not one of this model, optimizer and schedule.
    """
    model.to(device).to(memory_format=training_layout(device))
    optimizer = build_optimizer(model, config.optimizer)
    schedule = build_schedule(optimizer, config.schedule, config.epochs)
    training_step = build_training_step(model, optimizer, config, device=device, precision=precision, compiled=compiled)
    augment = build_augmentation(config.augmentation, dataset)
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule}
    history: list[dict] = []
    if checkpoint:
        history = _restore(stateful, checkpoint)

    grows = batch_size_at(config, config.epochs, len(dataset.train)) != config.batch_size
    weights = prunable_weights(model) if config.pruning.sparsity else []
    masks: list[Tensor] = []  # True for the entries of `weights` that are left, once the others are pruned
    if checkpoint:
        masks = _restore_masks(checkpoint, weights)
    elif config.pruning.epoch == 0:
        masks = prune(weights, config.pruning.sparsity)

    def state() -> dict:
        parts = {name: part.state_dict() for name, part in stateful.items()}
        return parts | {"history": history} | ({"masks": masks} if masks else {})

    train_size = len(dataset.train)
    with progress_bar(config.epochs, train_size, epochs_done=len(history)) as update_bar:
        while len(history) < config.epochs and not must_stop(history, active_stop(config, len(history))):
            start = time.perf_counter()
            epoch = len(history) + 1
            batch_size = batch_size_at(config, epoch, train_size)
            learning_rate = optimizer.param_groups[0]["lr"]
            seed = epoch_seed(config.seed, epoch)
            generator = torch.Generator().manual_seed(seed)  # on the CPU: the same batches on every device
            order = torch.randperm(train_size, generator=generator)

            model.train()
            with training_step.context(), seeded(seed, device):
                loss_sum = torch.zeros((), dtype=torch.float64, device=float64_device(device))
                correct = torch.zeros((), dtype=torch.int64, device=device)
                # Nothing in this loop waits for the device.
                for images, labels in training_batches(config.augmentation, dataset, batch_size, order, generator):
                    inputs, targets = augment(images, labels, generator)
                    loss, logits = training_step(inputs, targets)
                    optimizer.step()
                    zero_pruned(weights, masks)
                    loss_sum += as_float64(loss) * len(labels)
                    correct += (logits.argmax(dim=1) == labels).sum()
                    update_bar(len(labels), loss_sum, correct)
                train_loss, running_accuracy = loss_sum.item() / train_size, correct.item() / train_size

            if epoch == config.pruning.epoch:
                masks = prune(weights, config.pruning.sparsity)
            row = {
                "epoch": epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "running_accuracy": running_accuracy,
                "train_accuracy": math.nan,
            }
            stop = active_stop(config, epoch)
            if near_target(stop, running_accuracy, train_loss, mixes(config.augmentation)):
                row |= evaluate_for_stopping(model, dataset, stop, device, precision)
            row["seconds"] = time.perf_counter() - start
            if grows:
                row["batch_size"] = batch_size
            schedule.step()
            history.append(row)
            on_epoch(row, state)
    return history


def epochs_done(checkpoint: Mapping[str, Any] | None) -> int:
    """Return the number of epochs after which a checkpoint was written; 0 without one."""
    history = checkpoint.get("history") if checkpoint else None
    return len(history) if isinstance(history, list) else 0


def _restore(parts: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> list[dict]:
    """Return the history of a checkpoint, after loading the state of the model, the optimizer and the schedule.

    Raises:
        UnusableCheckpoint: The checkpoint does not fit these parts.
    """
    try:
        history = list(checkpoint["history"])
        epochs = [row["epoch"] for row in history]
        numbers = [row[name] for row in history for name in ("train_loss", "train_accuracy", "seconds")]
        last_epoch = checkpoint["schedule"].get("last_epoch", len(history))
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
    except CONTENT_ERRORS as error:
        if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
            raise  # the device failed; the checkpoint is kept
        reason = one_line(f"{type(error).__name__}: {error}", 100)
        raise UnusableCheckpoint(f"checkpoint.pt is not a checkpoint of this run ({reason})") from error
    complete = epochs == list(range(1, last_epoch + 1)) and all(isinstance(number, float) for number in numbers)
    if not history or not complete:
        raise UnusableCheckpoint("checkpoint.pt is not a checkpoint of this run (its history is invalid)")
    return history


def _restore_masks(checkpoint: Mapping[str, Any], weights: list[Tensor]) -> list[Tensor]:
    """Return the masks of a checkpoint, which are those of `weights`; an empty list before the weights are pruned."""
    masks = checkpoint.get("masks", [])
    if not masks:
        return []
    valid = isinstance(masks, list) and all(isinstance(mask, Tensor) and mask.dtype == torch.bool for mask in masks)
    if not valid or [mask.shape for mask in masks] != [weight.shape for weight in weights]:
        raise UnusableCheckpoint("checkpoint.pt is not a checkpoint of this run (its masks are invalid)")
    return [mask.to(weight.device) for mask, weight in zip(masks, weights, strict=True)]
