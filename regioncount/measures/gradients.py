"""The gradient of the training loss at the trained weights: its norm, and its variance over minibatches.

w are all weights and biases of the network with batch normalization folded in. L is the mean cross-entropy in nats over
sampled training points.
"""

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import Batch
from regioncount.measures.weights import SEED, as_vector, loss_and_gradient, weights_of
from regioncount.registry import register_measure

MINIBATCH = 50


@register_measure(scale_invariant=False)
def gradient_norm(measured: MeasuredModel) -> float:
    """Return ||grad_w L||_2, in nats per unit of weight. Rescaling layers changes it."""
    return _norm_and_variance(measured)[0]


@register_measure(scale_invariant=False)
def gradient_variance(measured: MeasuredModel) -> float:
    """Return mean_B ||g_B - g||_2^2 over minibatches B of 50 sampled training points.

    g_B is the gradient of the mean loss on B, and g is the mean of all g_B (Jiang et al. 2020, measures from optimization).
    Rescaling layers changes it.

    Raises:
        InputError: If there are fewer than two minibatches.
    """
    measured.require_network()
    if len(measured.sample[0]) < 2 * MINIBATCH:
        raise InputError(f"{len(measured.sample[0])} training points are fewer than two minibatches of {MINIBATCH}")
    return _norm_and_variance(measured)[1]


def variance_over_batches(measured: MeasuredModel, batches: Iterable[Batch]) -> float:
    """Return mean_B ||g_B - g||_2^2 over minibatches B; see `gradient_variance`.

    Args:
        measured: The model.
        batches: The minibatches: inputs and labels.

    Raises:
        InputError: If there are fewer than two minibatches, or the model is not a network.
    """
    total, squares, number = _sums(measured, batches)
    if number < 2:
        raise InputError(f"{number} minibatch: two are needed for a variance")
    return squares / number - (total / number).square().sum().item()


def _sums(measured: MeasuredModel, batches: Iterable[Batch]) -> tuple[Tensor, float, int]:
    """Return the sum of the gradients of batches, (k,), the sum of their squared norms, and the number of batches."""
    weights = weights_of(measured)
    total, squares, number = torch.zeros((), dtype=torch.float64, device=measured.sample[0].device), 0.0, 0
    for batch in batches:
        gradient = as_vector(loss_and_gradient(measured, weights, [batch])[1])
        total, squares, number = total + gradient, squares + gradient.square().sum().item(), number + 1
    return total, squares, number


@functools.lru_cache(maxsize=1)
def _norm_and_variance(measured: MeasuredModel) -> tuple[float, float]:
    """Return `gradient_norm` and `gradient_variance`, computed in one pass."""
    inputs, labels = measured.sample
    # Shuffled, since minibatches of a sorted data set would have one class each.
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(SEED)).to(inputs.device)
    batches = [(inputs[indices], labels[indices]) for indices in order.split(MINIBATCH)]
    full = [batch for batch in batches if len(batch[1]) == MINIBATCH]
    total, squares, number = _sums(measured, full)
    last, _, _ = _sums(measured, batches[len(full) :])
    norm = ((total * MINIBATCH + last * (len(inputs) % MINIBATCH)) / len(inputs)).norm().item()
    if number < 2:
        return norm, math.nan
    return norm, squares / number - (total / number).square().sum().item()
