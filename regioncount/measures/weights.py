"""The weights of a network by name: perturbed copies, and the loss and its gradient as functions of the weights.

The network itself is never changed.
"""

import math

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import Batch
from regioncount.regions.evaluation import true_float32

Weights = dict[str, Tensor]

SEED = 0

# Number of sampled training points on which perturbed weights are evaluated. A gradient costs three forward passes and
# a Hessian-vector product ten. On one core, this keeps each measure of a small network well below a minute.
PERTURBED_POINTS = 500


def weights_of(measured: MeasuredModel) -> Weights:
    """Return w: all weights and biases by name, with batch normalization folded in."""
    return {name: parameter.detach() for name, parameter in measured.network.named_parameters()}


def perturbed(weights: Weights, scales: Weights, draw: int) -> Weights:
    """Return w + scales * z, where z is standard normal and depends only on `draw`, not on the device."""
    generator = torch.Generator().manual_seed(SEED + draw)
    noises = {name: torch.randn(weight.shape, generator=generator).to(weight) for name, weight in weights.items()}
    return {name: weight + scales[name] * noises[name] for name, weight in weights.items()}


def as_vector(weights: Weights) -> Tensor:
    """Return all weights, (k,), in float64."""
    return torch.cat([weight.double().flatten() for weight in weights.values()])


def norm(weights: Weights) -> float:
    """Return the Euclidean norm of all weights."""
    return math.sqrt(sum(weight.double().square().sum().item() for weight in weights.values()))


def mean_loss(measured: MeasuredModel, weights: Weights) -> float:
    """Return the mean loss of the network with other weights, over `PERTURBED_POINTS` sampled points, in nats."""
    total, number = 0.0, 0
    with torch.no_grad(), true_float32():
        for inputs, labels in measured.sample_batches(PERTURBED_POINTS):
            logits = functional_call(measured.network, weights, (inputs,))
            total += cross_entropy(logits, labels, reduction="sum").item()
            number += len(labels)
    return total / number


def loss_and_gradient(measured: MeasuredModel, weights: Weights, batches: list[Batch]) -> tuple[float, Weights]:
    """Return the mean loss of the network with other weights over some points, and its gradient with respect to them."""
    weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    number = sum(len(labels) for _, labels in batches)
    total, gradient = 0.0, {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    with torch.enable_grad(), true_float32():
        for inputs, labels in batches:
            loss = cross_entropy(functional_call(measured.network, weights, (inputs,)), labels, reduction="sum") / number
            parts = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for slope, part in zip(gradient.values(), parts, strict=True):
                slope += part
            total += loss.item()
    return total, gradient
