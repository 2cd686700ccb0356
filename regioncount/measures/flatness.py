"""Flatness: how training loss depends on perturbations of the weights, and its curvature.

Unless a measure says otherwise, w are all weights and biases of the network with batch normalization folded in, and L is
the mean cross-entropy in nats over sampled training points. "Rescaling layers" means multiplying one layer by a and the
next by 1 / a.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import Batch
from regioncount.measures.weights import (
    PERTURBED_POINTS,
    SEED,
    Weights,
    loss_and_gradient,
    mean_loss,
    norm,
    perturbed,
    weights_of,
)
from regioncount.regions.evaluation import evaluation_mode, true_float32
from regioncount.registry import register_measure

CURVATURE_POINTS = 200

# The radii with which sharpness-aware training is most accurate on CIFAR-10: Foret et al. 2020 and Kwon et al. 2021.
RADIUS = 0.05
ADAPTIVE_RADIUS = 0.5
ASCENT_STEPS = 20  # as in Andriushchenko et al. 2023
MIN_STEP = 2**-6  # relative to the radius

# The adaptive noise is a tenth of each weight, in the middle of the range that Andriushchenko et al. 2023 test. The
# other noise is a tenth of a typical weight, which is about 0.1.
DEVIATION = 0.01
ADAPTIVE_DEVIATION = 0.1
DRAWS = 20

# The largest eigenvalue is well separated from the others, so a few Lanczos vectors suffice.
LANCZOS_VECTORS = 8
LANCZOS_TOLERANCE = 1e-2
TRACE_PROBES = 5


@register_measure(scale_invariant=False)
def sharpness(measured: MeasuredModel) -> float:
    """Return worst-case sharpness, max over ||delta||_2 <= 0.05 of L(w + delta) - L(w), in nats.

    It is computed by gradient ascent with normalized steps. Keskar et al. 2017; over a ball, Foret et al. 2020. Rescaling
    layers changes it.
    """
    scales = {name: torch.ones_like(weight) for name, weight in weights_of(measured).items()}
    return _worst_case(measured, RADIUS, scales)


@register_measure(scale_invariant=True)
def adaptive_sharpness(measured: MeasuredModel) -> float:
    """Return adaptive sharpness, max over ||delta / |w| ||_2 <= 0.5 of L(w + delta) - L(w), in nats.

    It is computed by gradient ascent with normalized steps (Kwon et al. 2021; Andriushchenko et al. 2023). Rescaling layers
    does not change it, since perturbations are proportional to the weights.
    """
    scales = {name: weight.abs() for name, weight in weights_of(measured).items()}
    return _worst_case(measured, ADAPTIVE_RADIUS, scales)


@register_measure(scale_invariant=False)
def average_sharpness(measured: MeasuredModel) -> float:
    """Return E L(w + delta) - L(w) over delta ~ N(0, 0.01^2), in nats (Andriushchenko et al. 2023).

    The expectation is a mean over 20 draws. Rescaling layers changes it.
    """
    scales = {name: torch.ones_like(weight) for name, weight in weights_of(measured).items()}
    return _average_case(measured, DEVIATION, scales)


@register_measure(scale_invariant=True)
def adaptive_average_sharpness(measured: MeasuredModel) -> float:
    """Return E L(w + delta) - L(w) over delta_i ~ N(0, 0.1^2 w_i^2), in nats (Andriushchenko et al. 2023).

    The expectation is a mean over 20 draws. Rescaling layers does not change it, since perturbations are proportional to the
    weights.
    """
    scales = {name: weight.abs() for name, weight in weights_of(measured).items()}
    return _average_case(measured, ADAPTIVE_DEVIATION, scales)


@register_measure(scale_invariant=False)
def hessian_eigenvalue(measured: MeasuredModel) -> float:
    """Return the largest eigenvalue of the Hessian of L with respect to w, computed by Lanczos iteration.

    Keskar et al. 2017 relate it to sharpness. Rescaling layers changes it (Dinh et al. 2017).
    """
    return _largest_eigenvalue(*_sample_hessian(measured))


@register_measure(scale_invariant=False, on_request=True)
def training_hessian_eigenvalue(measured: MeasuredModel) -> float:
    """Return the largest eigenvalue of the Hessian of the training loss, computed by Lanczos iteration.

    The loss is the mean cross-entropy over the whole training set, as a function of all parameters that need a gradient,
    also pruned ones. Batch normalization is not folded, and uses its running statistics. Full-batch gradient descent with
    learning rate eta is stable up to an eigenvalue of 2 / eta (Cohen et al. 2021). Rescaling layers changes it.
    """
    network = measured.require_network()
    weights = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}
    with evaluation_mode(network):
        return _largest_eigenvalue(*_hessian_product(network, weights, measured.train, measured.train_size))


def _largest_eigenvalue(product: Callable[[Tensor], Tensor], size: int) -> float:
    """Return the largest eigenvalue of a symmetric matrix (size, size), given its product with vectors (size,)."""

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return product(torch.as_tensor(vector, dtype=torch.float32)).double().cpu().numpy()

    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(SEED).standard_normal(size)
    vectors = min(LANCZOS_VECTORS, size)
    values = eigsh(operator, k=1, which="LA", v0=start, ncv=vectors, tol=LANCZOS_TOLERANCE, return_eigenvectors=False)
    return float(values[0])


@register_measure(scale_invariant=False)
def hessian_trace(measured: MeasuredModel) -> float:
    """Return the trace of the Hessian of L with respect to w, estimated by Hutch++ (Meyer et al. 2021).

    The estimate is exact on the span of five Hessian-vector products, and an average over random signs on its complement.
    Rescaling layers changes it (Dinh et al. 2017).
    """
    product, size = _sample_hessian(measured)
    generator = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, (2 * TRACE_PROBES, size), generator=generator).float().mul_(2).sub_(1)
    sketch, probes = signs.to(measured.sample[0].device).split(TRACE_PROBES)
    basis: Tensor = torch.linalg.qr(torch.stack([product(probe) for probe in sketch], dim=1)).Q
    on_span = sum(column @ product(column) for column in basis.unbind(dim=1))
    projected = [probe - basis @ (basis.T @ probe) for probe in probes]
    on_complement = sum(probe @ product(probe) for probe in projected) / len(projected)
    return float(on_span + on_complement)


def _worst_case(measured: MeasuredModel, radius: float, scales: Weights) -> float:
    """Return max over ||u||_2 <= radius of L(w + scales * u) - L(w).

    Each step follows the normalized gradient and is projected onto the ball. A step that does not increase the loss is
    undone, and the following steps are half as long.
    """
    weights = weights_of(measured)
    batches = list(measured.sample_batches(PERTURBED_POINTS))
    offset = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    start, gradient = loss_and_gradient(measured, weights, batches)
    highest, step = start, radius
    for _ in range(ASCENT_STEPS):
        direction = {name: scales[name] * gradient[name] for name in weights}
        length = norm(direction)
        if length == 0 or step < MIN_STEP * radius:
            break
        trial = {name: offset[name] + step / length * direction[name] for name in weights}
        excess = max(1.0, norm(trial) / radius)
        trial = {name: trial[name] / excess for name in weights}
        moved = {name: weights[name] + scales[name] * trial[name] for name in weights}
        loss, trial_gradient = loss_and_gradient(measured, moved, batches)
        if loss > highest:
            highest, offset, gradient = loss, trial, trial_gradient
        else:
            step /= 2
    return highest - start


def _average_case(measured: MeasuredModel, deviation: float, scales: Weights) -> float:
    """Return the mean over draws of u ~ N(0, deviation^2) of L(w + scales * u) - L(w)."""
    weights = weights_of(measured)
    scales = {name: deviation * scale for name, scale in scales.items()}
    losses = [mean_loss(measured, perturbed(weights, scales, draw)) for draw in range(DRAWS)]
    return sum(losses) / len(losses) - mean_loss(measured, weights)


def _sample_hessian(measured: MeasuredModel) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return `_hessian_product` of the loss on `CURVATURE_POINTS` sampled points with respect to w."""
    batches = list(measured.sample_batches(CURVATURE_POINTS))
    number = sum(len(labels) for _, labels in batches)
    return _hessian_product(measured.network, weights_of(measured), lambda: batches, number)


def _hessian_product(
    network: nn.Module, weights: Weights, batches: Callable[[], Iterable[Batch]], number: int
) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return the function v -> H v of vectors (k,) over all weights, and k.

    H is the Hessian of the mean loss over the `number` points of all batches. The product uses forward over reverse
    differentiation by torch.func: curvlinops 3.0.1 has no such product for networks with SiLU, and reverse over reverse
    takes minutes for narrow VGG networks on a CPU.
    """
    sizes = [weight.numel() for weight in weights.values()]

    def product(vector: Tensor) -> Tensor:
        parts = vector.to(next(iter(weights.values()))).split(sizes)
        direction = {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}
        total: Tensor | float = 0.0
        with true_float32(), torch.enable_grad():
            for inputs, labels in batches():

                def loss(weights: Weights, inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
                    return cross_entropy(functional_call(network, weights, (inputs,)), labels, reduction="sum")

                derivatives: Weights = jvp(grad(loss), (weights,), (direction,))[1]
                total = total + torch.cat([derivative.detach().flatten() for derivative in derivatives.values()])
        return torch.as_tensor(total / number)

    return product, sum(sizes)
