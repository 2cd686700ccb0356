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

# Jiang et al. 2020, appendix C.
ACCURACY_LOSS = 0.1
MAGNITUDE_EPSILON = 1e-3
NOISE_DRAWS = 10
NOISE_RANGE = (2.0**-20, 2.0**10)
NOISE_BISECTIONS = 5  # of a bracket of 4: a noise within 4.4 %, as far as so few draws say it

MINIBATCH = 50

# Lanczos vectors held: the largest eigenvalue stands far out, so that few find it.
LANCZOS_VECTORS = 8
LANCZOS_TOLERANCE = 1e-2
TRACE_PROBES = 5


def sharpness(subject: Subject) -> float:
    """Worst-case sharpness: max over ||delta||_2 <= 0.05 of L(w + delta) - L(w), in nats.

    By ascent along normalized gradients. Keskar et al. 2017; in a ball, Foret et al. 2020. Rescaling layers changes it.
    """
    return _worst_case(subject, RADIUS, {name: torch.ones_like(weight) for name, weight in _weights(subject).items()})


def adaptive_sharpness(subject: Subject) -> float:
    """max over ||delta / |w| ||_2 <= 0.5 of L(w + delta) - L(w), in nats (Kwon et al. 2021; Andriushchenko et al. 2023), by
    ascent along normalized gradients. Rescaling layers does not change it: every weight moves in proportion to itself."""
    return _worst_case(subject, ADAPTIVE_RADIUS, {name: weight.abs() for name, weight in _weights(subject).items()})


def average_sharpness(subject: Subject) -> float:
    """E L(w + delta) - L(w) over delta ~ N(0, 0.01^2), in nats (Andriushchenko et al. 2023). Rescaling layers changes it."""
    return _average_case(subject, DEVIATION, {name: torch.ones_like(weight) for name, weight in _weights(subject).items()})


def adaptive_average_sharpness(subject: Subject) -> float:
    """E L(w + delta) - L(w) over delta_i ~ N(0, 0.1^2 w_i^2), in nats (Andriushchenko et al. 2023).

    Rescaling layers does not change it: every weight moves in proportion to itself.
    """
    return _average_case(subject, ADAPTIVE_DEVIATION, {name: weight.abs() for name, weight in _weights(subject).items()})


def hessian_eigenvalue(subject: Subject) -> float:
    """The largest eigenvalue of the Hessian of L with respect to w, by Lanczos iteration (Keskar et al. 2017 relate it to
    sharpness). Rescaling layers changes it (Dinh et al. 2017)."""
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
    products with random signs, averaged over random signs beyond it. Rescaling layers changes it (Dinh et al. 2017)."""
    product, size = _hessian_product(subject)
    generator = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, (2 * TRACE_PROBES, size), generator=generator).float().mul_(2).sub_(1)
    sketch, probes = signs.to(subject.sample[0].device).split(TRACE_PROBES)
    basis = torch.linalg.qr(torch.stack([product(probe) for probe in sketch], dim=1)).Q
    within = sum(column @ product(column) for column in basis.unbind(dim=1))
    rests = [probe - basis @ (basis.T @ probe) for probe in probes]
    beyond = sum(rest @ product(rest) for rest in rests) / len(rests)
    return (within + beyond).item()


def pacbayes_flatness(subject: Subject) -> float:
    """1 / sigma^2, sigma the largest deviation of noise N(0, sigma^2) on each weight at which the mean accuracy on sampled
    training points falls by at most 0.1 (Jiang et al. 2020, appendix C). Rescaling layers changes it.

    Raises InputError where no noise is small enough or large enough.
    """
    return 1 / _defined(noise(subject)) ** 2


def pacbayes_magnitude_flatness(subject: Subject) -> float:
    """1 / sigma'^2, sigma' as sigma of `pacbayes_flatness` with noise N(0, sigma'^2 w_i^2 + 0.001^2) on weight i.

    Jiang et al. 2020, appendix C. Rescaling layers changes it, through the constant alone: little unless a layer is small.

    Raises InputError where no noise is small enough or large enough.
    """
    return 1 / _defined(magnitude_noise(subject)) ** 2


def pacbayes_origin(subject: Subject) -> float:
    """sqrt((||w||_2^2 / (4 sigma^2) + log(n / sigma) + 10) / n), sigma as of `pacbayes_flatness`, n training points.

    The bound of Jiang et al. 2020 (appendix C), on the scale of an error (Dziugaite et al. 2020), with the origin as the
    prior's mean. Rescaling layers changes it.

    Raises InputError where sigma is undefined.
    """
    return _noise_bound(subject, _vector(_weights(subject)))


def pacbayes_initialization(subject: Subject) -> float:
    """`pacbayes_origin` with the distance ||w - w^0||_2 in place of ||w||_2. Rescaling layers changes it.

    Raises InputError where sigma is undefined or the weights before training are not known.
    """
    return _noise_bound(subject, _moved(subject))


def pacbayes_magnitude_origin(subject: Subject) -> float:
    """sqrt((1/4 sum_i log((e^2 + (s^2 + 1) ||w||_2^2 / k) / (e^2 + s^2 w_i^2)) + log(n / s) + 10) / n).

    k weights, n training points, s = sigma' as of `pacbayes_magnitude_flatness`, e = 0.001.

    The bound of Jiang et al. 2020 (appendix C), on the scale of an error (Dziugaite et al. 2020); they have w - w^0 in the
    denominator here too, we the noise that sigma' was searched with. Rescaling layers changes it.

    Raises InputError where sigma' is undefined.
    """
    return _magnitude_bound(subject, _vector(_weights(subject)))


def pacbayes_magnitude_initialization(subject: Subject) -> float:
    """`pacbayes_magnitude_origin` with w - w^0 in place of w (Jiang et al. 2020, appendix C). Rescaling layers changes it.

    Raises InputError where sigma' is undefined or the weights before training are not known.
    """
    return _magnitude_bound(subject, _moved(subject))


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
    weights = _weights(subject)
    full, rest, squares, number = 0.0, 0.0, 0.0, 0
    for indices in order.split(MINIBATCH):
        _, slopes = _loss_and_gradient(subject, weights, [(inputs[indices], labels[indices])])
        slope = _vector(slopes)
        if len(indices) == MINIBATCH:
            full, squares, number = full + slope, squares + slope.square().sum(), number + 1
        else:
            rest = slope * len(indices)
    norm = ((full * MINIBATCH + rest) / len(inputs)).norm().item()
    variance = (squares / number - (full / number).square().sum()).item() if number > 1 else math.nan
    return norm, variance


@functools.lru_cache(maxsize=1)
def noise(subject: Subject) -> float:
    """sigma of `pacbayes_flatness`."""
    return _largest_noise(subject, lambda sigma, weight: torch.full_like(weight, sigma))


@functools.lru_cache(maxsize=1)
def magnitude_noise(subject: Subject) -> float:
    """sigma' of `pacbayes_magnitude_flatness`."""
    return _largest_noise(subject, lambda sigma, weight: (sigma**2 * weight.square() + MAGNITUDE_EPSILON**2).sqrt())


def _largest_noise(subject: Subject, deviations: Callable[[float, Tensor], Tensor]) -> float:
    """The noise that is tolerated while 1.044 times as much is not; 0 where none is, infinity where any is."""
    smallest, largest = NOISE_RANGE
    weights = _weights(subject)
    correct = sum(_correct(subject, weights, batch) for batch in _points(subject))
    needed = NOISE_DRAWS * (correct - ACCURACY_LOSS * min(PERTURBED_POINTS, len(subject.sample[0]))) - 1e-6

    def tolerated(sigma: float) -> bool:
        scales = {name: deviations(sigma, weight) for name, weight in weights.items()}
        return _as_many_correct(subject, weights, scales, needed)

    sigma = 1.0
    # Too much noise shows after few evaluations, so that the search comes from above.
    if tolerated(sigma):
        while tolerated(4 * sigma):
            sigma *= 4
            if sigma >= largest:
                return math.inf
    else:
        sigma /= 4
        while not tolerated(sigma):
            sigma /= 4
            if sigma < smallest:
                return 0.0
    factor = 4.0
    for _ in range(NOISE_BISECTIONS):
        factor **= 0.5
        if tolerated(sigma * factor):
            sigma *= factor
    return sigma


def _defined(sigma: float) -> float:
    """sigma; InputError where there is none. (The search keeps what it found, which it could not do with an error.)"""
    if sigma == 0:
        raise InputError(f"noise of {NOISE_RANGE[0]:g} on the weights lowers the accuracy by more than {ACCURACY_LOSS}")
    if sigma == math.inf:
        raise InputError(f"noise of {NOISE_RANGE[1]:g} on the weights does not lower the accuracy by {ACCURACY_LOSS}")
    return sigma


def _as_many_correct(subject: Subject, weights: Weights, scales: Weights, needed: float) -> bool:
    """Whether so many points, over all draws, are classified correctly; stops where that is decided."""
    found, left = 0, NOISE_DRAWS * min(PERTURBED_POINTS, len(subject.sample[0]))
    for draw in range(NOISE_DRAWS):
        moved = _perturbed(weights, scales, draw)
        for batch in _points(subject):
            found += _correct(subject, moved, batch)
            left -= len(batch[1])
            if found >= needed or found + left < needed:
                return found >= needed
    return found >= needed


def _noise_bound(subject: Subject, vector: Tensor) -> float:
    sigma, number = _defined(noise(subject)), subject.train_size
    bound = vector.square().sum().item() / (4 * sigma**2) + math.log(number / sigma) + 10
    return math.sqrt(bound / number)


def _magnitude_bound(subject: Subject, vector: Tensor) -> float:
    sigma, number = _defined(magnitude_noise(subject)), subject.train_size
    squares = vector.square()
    ratios = (MAGNITUDE_EPSILON**2 + (sigma**2 + 1) * squares.mean()) / (MAGNITUDE_EPSILON**2 + sigma**2 * squares)
    bound = ratios.log().sum().item() / 4 + math.log(number / sigma) + 10
    return math.sqrt(bound / number)


def _worst_case(subject: Subject, radius: float, scales: Weights) -> float:
    """max over ||u||_2 <= radius of L(w + scales * u) - L(w), by steps along the normalized gradient, then into the ball.

    A step that does not ascend is taken back and halved.
    """
    weights = _weights(subject)
    batches = list(_points(subject))
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
    """mean over u ~ N(0, deviation^2) of L(w + scales * u) - L(w)."""
    weights = _weights(subject)
    scales = {name: deviation * scale for name, scale in scales.items()}
    losses = [_loss(subject, _perturbed(weights, scales, draw)) for draw in range(DRAWS)]
    return sum(losses) / len(losses) - _loss(subject, weights)


def _hessian_product(subject: Subject) -> tuple[Callable[[Tensor], Tensor], int]:
    """The map v -> H v of vectors over all weights, and their size.

    Forward over reverse, in torch.func alone: curvlinops 3.0.1 has no such product of a network with SiLU, and the backward
    pass of a backward pass takes minutes for narrow VGG networks on a CPU.
    """
    network, weights = subject.network, _weights(subject)
    sizes = [weight.numel() for weight in weights.values()]
    batches = list(_points(subject, CURVATURE_POINTS))

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


def _points(subject: Subject, number: int = PERTURBED_POINTS) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the sampled training points, in batches that suit the device."""
    return subject.sample_batches(points=number)


def _weights(subject: Subject) -> Weights:
    return {name: parameter.detach() for name, parameter in subject.network.named_parameters()}


def _moved(subject: Subject) -> Tensor:
    """w - w^0."""
    before = dict(subject.initial_network.named_parameters())
    return _vector({name: weight.double() - before[name].detach().double() for name, weight in _weights(subject).items()})


def _perturbed(weights: Weights, scales: Weights, draw: int) -> Weights:
    """w + scales * z with standard normal z, the same for the same draw, on every device."""
    generator = torch.Generator().manual_seed(SEED + draw)
    noises = {name: torch.randn(weight.shape, generator=generator).to(weight) for name, weight in weights.items()}
    return {name: weight + scales[name] * noises[name] for name, weight in weights.items()}


def _loss(subject: Subject, weights: Weights) -> float:
    total, number = 0.0, 0
    with torch.no_grad(), true_float32():
        for inputs, labels in _points(subject):
            logits = functional_call(subject.network, weights, (inputs,))
            total += cross_entropy(logits, labels, reduction="sum").item()
            number += len(labels)
    return total / number


def _correct(subject: Subject, weights: Weights, batch: tuple[Tensor, Tensor]) -> int:
    inputs, labels = batch
    with torch.no_grad(), true_float32():
        return int((functional_call(subject.network, weights, (inputs,)).argmax(dim=1) == labels).sum())


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


def _vector(weights: Weights) -> Tensor:
    """All of them, (k,), in float64."""
    return torch.cat([weight.double().flatten() for weight in weights.values()])


def _norm(weights: Weights) -> float:
    return math.sqrt(sum(weight.double().square().sum().item() for weight in weights.values()))
