"""Flatness: how the training loss and accuracy change where the weights are moved, and by which slope and curvature.

w are all weights and biases of the network with batch normalization folded in, L the mean cross-entropy in nats over
sampled training points. Weights are moved in copies: the network itself stays as it is.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures.subject import Subject
from regioncount.regions.evaluation import true_float32

Weights = dict[str, Tensor]

SEED = 0

# A gradient costs three evaluations and a product with the Hessian ten: on one core, each measure is to take well below a
# minute of a small network.
PERTURBED_POINTS = 500
CURVATURE_POINTS = 200

# The radii with which sharpness-aware training does best on CIFAR-10: Foret et al. 2020 and Kwon et al. 2021.
RADIUS = 0.05
ADAPTIVE_RADIUS = 0.5
ASCENT_STEPS = 20  # as many as Andriushchenko et al. 2023
SMALLEST_STEP = 2**-6

# A tenth of each weight, the middle of what Andriushchenko et al. 2023 try, and as much of a usual weight of about 0.1.
DEVIATION = 0.01
ADAPTIVE_DEVIATION = 0.1
DRAWS = 20

MINIBATCH = 50

# Lanczos vectors held: the largest eigenvalue stands far out, so that few find it.
LANCZOS_VECTORS = 8
LANCZOS_TOLERANCE = 1e-2
TRACE_PROBES = 5


def sharpness(subject: Subject) -> float:
    """Worst-case sharpness: max over ||delta||_2 <= 0.05 of L(w + delta) - L(w), in nats.

    By ascent along normalized gradients. Keskar et al. 2017; in a ball, Foret et al. 2020. Rescaling layers changes it.
    """
    return _worst_case(subject, RADIUS, {name: torch.ones_like(weight) for name, weight in weights_of(subject).items()})


def adaptive_sharpness(subject: Subject) -> float:
    """Max over ||delta / |w| ||_2 <= 0.5 of L(w + delta) - L(w), in nats (Kwon et al. 2021; Andriushchenko et al. 2023), by
    ascent along normalized gradients. Rescaling layers does not change it: every weight moves in proportion to itself.
    """
    return _worst_case(subject, ADAPTIVE_RADIUS, {name: weight.abs() for name, weight in weights_of(subject).items()})


def average_sharpness(subject: Subject) -> float:
    """E L(w + delta) - L(w) over delta ~ N(0, 0.01^2), in nats (Andriushchenko et al. 2023). Rescaling layers changes it."""
    return _average_case(subject, DEVIATION, {name: torch.ones_like(weight) for name, weight in weights_of(subject).items()})


def adaptive_average_sharpness(subject: Subject) -> float:
    """E L(w + delta) - L(w) over delta_i ~ N(0, 0.1^2 w_i^2), in nats (Andriushchenko et al. 2023).

    Rescaling layers does not change it: every weight moves in proportion to itself.
    """
    return _average_case(subject, ADAPTIVE_DEVIATION, {name: weight.abs() for name, weight in weights_of(subject).items()})


def hessian_eigenvalue(subject: Subject) -> float:
    """The largest eigenvalue of the Hessian of L with respect to w, by Lanczos iteration (Keskar et al. 2017 relate it to
    sharpness). Rescaling layers changes it (Dinh et al. 2017).
    """
    product, size = _hessian_product(subject)

    def multiply(vector: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(vector, dtype=torch.float32)).double().cpu().numpy()

    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(SEED).standard_normal(size)
    vectors = min(LANCZOS_VECTORS, size)
    found = eigsh(operator, k=1, which="LA", v0=start, ncv=vectors, tol=LANCZOS_TOLERANCE, return_eigenvectors=False)
    return float(found[0])


def hessian_trace(subject: Subject) -> float:
    """The trace of the Hessian of L with respect to w, estimated by Hutch++ (Meyer et al. 2021): exact on the span of a few
    products with random signs, averaged over random signs beyond it. Rescaling layers changes it (Dinh et al. 2017).
    """
    product, size = _hessian_product(subject)
    generator = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, (2 * TRACE_PROBES, size), generator=generator).float().mul_(2).sub_(1)
    sketch, probes = signs.to(subject.sample[0].device).split(TRACE_PROBES)
    basis = torch.linalg.qr(torch.stack([product(probe) for probe in sketch], dim=1)).Q
    within = sum(column @ product(column) for column in basis.unbind(dim=1))
    rests = [probe - basis @ (basis.T @ probe) for probe in probes]
    beyond = sum(rest @ product(rest) for rest in rests) / len(rests)
    return (within + beyond).item()


def gradient_norm(subject: Subject) -> float:
    """||grad_w L||_2, in nats a unit of weight. Rescaling layers changes it."""
    return gradients(subject)[0]


def gradient_variance(subject: Subject) -> float:
    """mean_B ||g_B - g||_2^2 over minibatches of 50, g_B the gradient of the mean loss of one and g the mean of them (Jiang
    et al. 2020, measures from optimization). Rescaling layers changes it.

    Raises InputError where there are fewer than two minibatches.
    """
    if len(subject.sample[0]) < 2 * MINIBATCH:
        raise InputError(f"{len(subject.sample[0])} training points are fewer than two minibatches of {MINIBATCH}")
    return gradients(subject)[1]


@functools.lru_cache(maxsize=1)
def gradients(subject: Subject) -> tuple[float, float]:
    """`gradient_norm` and `gradient_variance`, in one pass."""
    inputs, labels = subject.sample
    # In the order of the data set, a minibatch might be of one class.
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(SEED)).to(inputs.device)
    weights = weights_of(subject)
    full, rest, squares, number = 0.0, 0.0, 0.0, 0
    for indices in order.split(MINIBATCH):
        _, slopes = _loss_and_gradient(subject, weights, [(inputs[indices], labels[indices])])
        slope = as_vector(slopes)
        if len(indices) == MINIBATCH:
            full, squares, number = full + slope, squares + slope.square().sum(), number + 1
        else:
            rest = slope * len(indices)
    norm = ((full * MINIBATCH + rest) / len(inputs)).norm().item()
    variance = (squares / number - (full / number).square().sum()).item() if number > 1 else math.nan
    return norm, variance


def _worst_case(subject: Subject, radius: float, scales: Weights) -> float:
    """Max over ||u||_2 <= radius of L(w + scales * u) - L(w), by steps along the normalized gradient, then into the ball.

    A step that does not ascend is taken back and halved.
    """
    weights = weights_of(subject)
    batches = list(points_of(subject))
    offset = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    start, slopes = _loss_and_gradient(subject, weights, batches)
    highest, step = start, radius
    for _ in range(ASCENT_STEPS):
        uphill = {name: scales[name] * slopes[name] for name in weights}
        steepness = _norm(uphill)
        if steepness == 0 or step < SMALLEST_STEP * radius:
            break
        trial = {name: offset[name] + step / steepness * uphill[name] for name in weights}
        outside = max(1.0, _norm(trial) / radius)
        trial = {name: trial[name] / outside for name in weights}
        moved = {name: weights[name] + scales[name] * trial[name] for name in weights}
        loss, slopes_there = _loss_and_gradient(subject, moved, batches)
        if loss > highest:
            highest, offset, slopes = loss, trial, slopes_there
        else:
            step /= 2
    return highest - start


def _average_case(subject: Subject, deviation: float, scales: Weights) -> float:
    """Mean over u ~ N(0, deviation^2) of L(w + scales * u) - L(w)."""
    weights = weights_of(subject)
    scales = {name: deviation * scale for name, scale in scales.items()}
    losses = [_loss(subject, perturbed(weights, scales, draw)) for draw in range(DRAWS)]
    return sum(losses) / len(losses) - _loss(subject, weights)


def _hessian_product(subject: Subject) -> tuple[Callable[[Tensor], Tensor], int]:
    """The map v -> H v of vectors over all weights, and their size.

    Forward over reverse, in torch.func alone: curvlinops 3.0.1 has no such product of a network with SiLU, and the backward
    pass of a backward pass takes minutes for narrow VGG networks on a CPU.
    """
    network, weights = subject.network, weights_of(subject)
    sizes = [weight.numel() for weight in weights.values()]
    batches = list(points_of(subject, CURVATURE_POINTS))

    def product(vector: Tensor) -> Tensor:
        parts = vector.to(next(iter(weights.values()))).split(sizes)
        direction = {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}
        total = 0
        with true_float32(), torch.enable_grad():
            for inputs, labels in batches:

                def loss(weights, inputs=inputs, labels=labels):
                    return cross_entropy(functional_call(network, weights, (inputs,)), labels, reduction="sum")

                _, along = jvp(grad(loss), (weights,), (direction,))
                total = total + torch.cat([slope.detach().flatten() for slope in along.values()])
        return total / sum(len(labels) for _, labels in batches)

    return product, sum(sizes)


def points_of(subject: Subject, number: int = PERTURBED_POINTS) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the sampled training points, in batches that suit the device."""
    return subject.sample_batches(points=number)


def weights_of(subject: Subject) -> Weights:
    """w, by name."""
    return {name: parameter.detach() for name, parameter in subject.network.named_parameters()}


def perturbed(weights: Weights, scales: Weights, draw: int) -> Weights:
    """W + scales * z with standard normal z, the same for the same draw, on every device."""
    generator = torch.Generator().manual_seed(SEED + draw)
    noises = {name: torch.randn(weight.shape, generator=generator).to(weight) for name, weight in weights.items()}
    return {name: weight + scales[name] * noises[name] for name, weight in weights.items()}


def _loss(subject: Subject, weights: Weights) -> float:
    total, number = 0.0, 0
    with torch.no_grad(), true_float32():
        for inputs, labels in points_of(subject):
            logits = functional_call(subject.network, weights, (inputs,))
            total += cross_entropy(logits, labels, reduction="sum").item()
            number += len(labels)
    return total / number


def _loss_and_gradient(subject: Subject, weights: Weights, batches: list[tuple[Tensor, Tensor]]) -> tuple[float, Weights]:
    """The mean loss over some points and its gradient with respect to these weights."""
    weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    number = sum(len(labels) for _, labels in batches)
    total, slopes = 0.0, {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    with torch.enable_grad(), true_float32():
        for inputs, labels in batches:
            loss = cross_entropy(functional_call(subject.network, weights, (inputs,)), labels, reduction="sum") / number
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for slope, part in zip(slopes.values(), found, strict=True):
                slope += part
            total += loss.item()
    return total, slopes


def as_vector(weights: Weights) -> Tensor:
    """All of them, (k,), in float64."""
    return torch.cat([weight.double().flatten() for weight in weights.values()])


def _norm(weights: Weights) -> float:
    return math.sqrt(sum(weight.double().square().sum().item() for weight in weights.values()))
