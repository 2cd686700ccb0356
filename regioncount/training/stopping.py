"""When training ends before its last epoch: the stop rule is met, or the loss is not finite.

A stop rule applies to the whole training set, evaluated in float32. This evaluation takes a third of an epoch's time on a
CPU and three times an epoch's time on a GPU. It is therefore skipped unless cheaper estimates are close to the target: first
the epoch's running averages, then, if training is in bfloat16, an evaluation in bfloat16 (a third of an epoch on a GPU) and,
if the rule has no target loss, an evaluation in float32 of the images whose margin in bfloat16 is small. Training never ends
without the evaluation in float32. An estimate that is wrong by more than its tolerance could only delay the end.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from regioncount.config import RunConfig, Stop
from regioncount.data import Dataset
from regioncount.measures.measured_model import evenly_spaced
from regioncount.measures.outputs import Outputs, evaluate, split_batches
from regioncount.regions.screening import BOUND_ERRORS

# Tolerances of the running averages, which lag behind the values at the end of the epoch.
RUNNING_ACCURACY_SLACK = 0.02
RUNNING_LOSS_FACTOR = 2.0
# Tolerances of an evaluation in bfloat16.
BFLOAT16_ACCURACY_SLACK = 0.005
BFLOAT16_LOSS_FACTOR = 1.25


def meets_target(stop: Stop, accuracy: float, loss: float, accuracy_slack: float = 0.0, loss_factor: float = 1.0) -> bool:
    """Return whether an accuracy or a loss meets the stop rule.

    Args:
        stop: The stop rule. If it has two targets, either suffices.
        accuracy: The accuracy, as a fraction.
        loss: The mean cross-entropy, in nats.
        accuracy_slack: How far below its target the accuracy may be.
        loss_factor: How many times its target the loss may be.

    Returns:
        True if a target is met; False if the rule has no target.
    """
    accurate = stop.train_accuracy is not None and accuracy >= stop.train_accuracy - accuracy_slack
    return accurate or (stop.train_loss is not None and loss <= stop.train_loss * loss_factor)


def near_target(stop: Stop, running_accuracy: float, running_loss: float, mixed_labels: bool) -> bool:
    """Return whether the running averages of an epoch are close enough to a target that the stop rule may be met.

    Args:
        stop: The stop rule.
        running_accuracy: The average accuracy of the epoch's batches, in training mode.
        running_loss: The average loss of these batches.
        mixed_labels: Whether the augmentation mixes images. If so, every epoch counts as close, because the running
            averages describe mixed images and not the training set.

    Returns:
        Whether to evaluate the training set; False if the rule has no target or the loss is not finite.
    """
    if not math.isfinite(running_loss):
        return False
    if mixed_labels:
        return stop.train_accuracy is not None or stop.train_loss is not None
    return meets_target(stop, running_accuracy, running_loss, RUNNING_ACCURACY_SLACK, RUNNING_LOSS_FACTOR)


def evaluate_for_stopping(
    model: nn.Module, dataset: Dataset, stop: Stop, device: torch.device, precision: str
) -> dict[str, float]:
    """Evaluate the whole training set as the stop rule requires.

    Args:
        model: The network, on `device`.
        dataset: The data set, on `device`.
        stop: The stop rule.
        device: The device of the evaluation.
        precision: The precision of training. If it is "bfloat16", the training set is first evaluated in bfloat16.

    Returns:
        The history's stop_loss and train_accuracy; empty if an estimate shows that the target is not met.
    """
    if precision == "bfloat16":
        outputs = evaluate(model, split_batches(dataset, dataset.train, device), bfloat16=True)
        if not meets_target(stop, outputs.accuracy, outputs.loss, BFLOAT16_ACCURACY_SLACK, BFLOAT16_LOSS_FACTOR):
            return {}
        if stop.train_loss is None and outputs.margins is not None:
            accuracy = screened_accuracy(model, dataset, outputs.margins, device)
            if not meets_target(stop, accuracy, math.inf):
                return {}
    outputs = evaluate(model, split_batches(dataset, dataset.train, device))
    return {"stop_loss": outputs.loss, "train_accuracy": outputs.accuracy}


def screened_accuracy(model: nn.Module, dataset: Dataset, margins: Tensor, device: torch.device) -> float:
    """Estimate the accuracy on the training set in float32, given the margins in bfloat16.

    Only images with a small margin in bfloat16 are evaluated in float32: those up to twice the largest error of a margin on
    1,000 images. The estimate is exact, unless the margin of another image errs by more than that.

    Args:
        model: The network, on `device`.
        dataset: The data set, on `device`.
        margins: The margins of all training images in bfloat16, (N,); see `Outputs`.
        device: The device of the evaluation.

    Returns:
        The accuracy, as a fraction.
    """

    def evaluate_float32(indices: Tensor) -> Outputs:
        return evaluate(model, split_batches(dataset, dataset.train.select(indices), device))

    sample = evenly_spaced(len(margins))
    errors = cast(Tensor, evaluate_float32(sample).margins) - margins[sample]
    undecided = (~(margins.abs() > BOUND_ERRORS * errors.abs().max())).nonzero().squeeze(1)  # including NaN
    correct = (margins > 0).sum().item() - (margins[undecided] > 0).sum().item()
    if len(undecided):
        correct += round(evaluate_float32(undecided).accuracy * len(undecided))
    return correct / len(margins)


def active_stop(config: RunConfig, epochs_done: int) -> Stop:
    """Return the stop rule after a number of epochs; one without a target before the weights are pruned."""
    return config.stop if epochs_done >= (config.pruning.epoch or 0) else Stop()


def must_stop(history: list[dict], stop: Stop) -> bool:
    """Return whether the last epoch of a history diverged or met the stop rule."""
    if not history:
        return False
    last = history[-1]
    return diverged(history) or meets_target(stop, last["train_accuracy"], last.get("stop_loss", math.inf))


def diverged(history: list[dict]) -> bool:
    """Return whether training ended because its loss was not finite."""
    return bool(history) and not math.isfinite(history[-1]["train_loss"])
