"""Flatness: how training loss depends on perturbations of the weights, and its curvature.

Unless a measure says otherwise, w are all weights and biases of the network with batch normalization folded in, and L is
the mean cross-entropy in nats over sampled training points. "Rescaling layers" means multiplying one layer by a and the
next by 1 / a.
"""

import functools
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import Batch, with_standard_error
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
FIRST_STEP, MIN_STEP = 4, 2**-6  # relative to the radius
SMALL_GAIN = 1 / 400  # of a step, relative to the increase so far

# The adaptive noise is a tenth of each weight, in the middle of the range that Andriushchenko et al. 2023 test. The
# other noise is a tenth of a typical weight, which is about 0.1.
DEVIATION = 0.01
ADAPTIVE_DEVIATION = 0.1
DRAWS = 20

# The largest eigenvalue is well separated from the others, so a few Lanczos vectors suffice. They also serve the trace.
LANCZOS_VECTORS = (8, 100)
LANCZOS_TOLERANCE = 1e-2  # of the residual, relative to the eigenvalue; the error is smaller, about its square over the gap
INVARIANT = 1e-6  # the remainder, relative to the eigenvalues, at which the Krylov space is invariant
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
def average_sharpness(measured: MeasuredModel) -> dict[str, float]:
    """Return E L(w + delta) - L(w) over delta ~ N(0, 0.01^2), in nats (Andriushchenko et al. 2023).

    The expectation is a mean over 20 draws; its standard error is returned too. Rescaling layers changes it.
    """
    scales = {name: torch.ones_like(weight) for name, weight in weights_of(measured).items()}
    return with_standard_error("average_sharpness", _average_case(measured, DEVIATION, scales))


@register_measure(scale_invariant=True)
def adaptive_average_sharpness(measured: MeasuredModel) -> dict[str, float]:
    """Return E L(w + delta) - L(w) over delta_i ~ N(0, 0.1^2 w_i^2), in nats (Andriushchenko et al. 2023).

    The expectation is a mean over 20 draws; its standard error is returned too. Rescaling layers does not change it, since
    perturbations are proportional to the weights.
    """
    scales = {name: weight.abs() for name, weight in weights_of(measured).items()}
    return with_standard_error("adaptive_average_sharpness", _average_case(measured, ADAPTIVE_DEVIATION, scales))


@register_measure(scale_invariant=False)
def hessian_eigenvalue(measured: MeasuredModel) -> float:
    """Return the largest eigenvalue of the Hessian of L with respect to w, computed by Lanczos iteration.

    Keskar et al. 2017 relate it to sharpness. Rescaling layers changes it (Dinh et al. 2017).

    Raises:
        InputError: If the iteration does not converge.
    """
    return _require_converged(_sample_krylov(measured)[0])


@register_measure(scale_invariant=False, on_request=True)
def training_hessian_eigenvalue(measured: MeasuredModel) -> float:
    """Return the largest eigenvalue of the Hessian of the training loss, computed by Lanczos iteration.

    The loss is the mean cross-entropy over the whole training set, as a function of all parameters that need a gradient,
    also pruned ones. Batch normalization is not folded, and uses its running statistics. Full-batch gradient descent with
    learning rate eta is stable up to an eigenvalue of 2 / eta (Cohen et al. 2021). Rescaling layers changes it.

    Raises:
        InputError: If the model is not a network, or the iteration does not converge.
    """
    network = measured.require_network()
    weights = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}
    with evaluation_mode(network):
        return _require_converged(lanczos(*_hessian_product(network, weights, measured.train, measured.train_size))[0])


@register_measure(scale_invariant=False)
def hessian_trace(measured: MeasuredModel) -> dict[str, float]:
    """Return an estimate of the trace of the Hessian of L with respect to w, and its standard error.

    The trace on the Krylov space of `hessian_eigenvalue` is exact, and that on its complement an average over five vectors
    of random signs: a Krylov-aware variant of Hutch++ (Meyer et al. 2021; Chen and Hallman 2023). Rescaling layers changes
    it (Dinh et al. 2017).
    """
    _, basis, on_basis = _sample_krylov(measured)
    product, size = _sample_hessian(measured)
    generator = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, (TRACE_PROBES, size), generator=generator).to(basis).mul_(2).sub_(1)
    probes = [probe - basis @ (basis.T @ probe) for probe in signs]
    return with_standard_error("hessian_trace", [on_basis + (probe @ product(probe)).item() for probe in probes])


def lanczos(product: Callable[[Tensor], Tensor], size: int) -> tuple[float, Tensor, float]:
    """Return the largest eigenvalue of a symmetric matrix, and the Krylov space in which it was found.

    Vectors are orthogonalized against all others (Golub and Van Loan 2013, section 10.3).

    Args:
        product: The product of the matrix (size, size) with a vector (size,).
        size: The number of rows of the matrix.

    Returns:
        The eigenvalue, NaN if the iteration does not converge; an orthonormal basis of the space, (size, m); and the trace
        of the matrix on it.
    """
    least, most = (min(number, size) for number in LANCZOS_VECTORS)
    vector = torch.from_numpy(np.random.default_rng(SEED).standard_normal(size)).float()
    basis: list[Tensor] = []
    diagonal: list[float] = []
    below: list[float] = []
    while True:
        image = product(vector / vector.norm())
        basis.append(vector.to(image) / vector.norm().item())
        diagonal.append((basis[-1] @ image).item())
        vector = image
        for _ in range(2):  # once leaves rounding errors of the size of a small remainder
            for other in basis:
                vector = vector - (other @ vector) * other
        below.append(vector.norm().item())
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(below[:-1], 1) + np.diag(below[:-1], -1))
        residual = below[-1] * abs(vectors[-1, -1])
        scale = max(abs(values[0]), abs(values[-1]))
        ended = below[-1] <= INVARIANT * scale or len(basis) == size
        if ended or (len(basis) >= least and residual <= LANCZOS_TOLERANCE * abs(values[-1])):
            return float(values[-1]), torch.stack(basis, dim=1), sum(diagonal)
        if len(basis) == most:
            return math.nan, torch.stack(basis, dim=1), sum(diagonal)


@functools.lru_cache(maxsize=1)
def _sample_krylov(measured: MeasuredModel) -> tuple[float, Tensor, float]:
    """Return `lanczos` of the Hessian of the loss on `CURVATURE_POINTS` sampled points."""
    return lanczos(*_sample_hessian(measured))


def _require_converged(value: float) -> float:
    if math.isnan(value):
        raise InputError(f"the Lanczos iteration does not converge within {LANCZOS_VECTORS[1]} steps")
    return value


def _worst_case(measured: MeasuredModel, radius: float, scales: Weights) -> float:
    """Return max over ||u||_2 <= radius of L(w + scales * u) - L(w).

    Each step follows the normalized gradient and is projected onto the ball. A step that does not increase the loss is
    undone, and the following steps are half as long. The ascent ends after two steps in a row that each add little.
    """
    weights = weights_of(measured)
    batches = list(measured.sample_batches(PERTURBED_POINTS))
    offset = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    start, gradient = _loss_and_gradient(measured)
    highest, step, small_gains = start, FIRST_STEP * radius, 0
    for _ in range(ASCENT_STEPS):
        direction = {name: scales[name] * gradient[name] for name in weights}
        length = norm(direction)
        if length == 0 or step < MIN_STEP * radius or small_gains == 2:
            break
        trial = {name: offset[name] + step / length * direction[name] for name in weights}
        excess = max(1.0, norm(trial) / radius)
        trial = {name: trial[name] / excess for name in weights}
        moved = {name: weights[name] + scales[name] * trial[name] for name in weights}
        loss, trial_gradient = loss_and_gradient(measured, moved, batches)
        if loss > highest:
            small_gains = small_gains + 1 if loss - highest < SMALL_GAIN * (loss - start) else 0
            highest, offset, gradient = loss, trial, trial_gradient
        else:
            step /= 2
    return highest - start


def _average_case(measured: MeasuredModel, deviation: float, scales: Weights) -> list[float]:
    """Return L(w + scales * u) - L(w) for draws of u ~ N(0, deviation^2)."""
    weights, start = weights_of(measured), _mean_loss(measured)
    scales = {name: deviation * scale for name, scale in scales.items()}
    return [mean_loss(measured, perturbed(weights, scales, draw)) - start for draw in range(DRAWS)]


@functools.lru_cache(maxsize=1)
def _mean_loss(measured: MeasuredModel) -> float:
    """Return L."""
    return mean_loss(measured, weights_of(measured))


@functools.lru_cache(maxsize=1)
def _loss_and_gradient(measured: MeasuredModel) -> tuple[float, Weights]:
    """Return L and its gradient."""
    return loss_and_gradient(measured, weights_of(measured), list(measured.sample_batches(PERTURBED_POINTS)))


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
