"""PAC-Bayes measures: how much noise the weights bear, and the bounds that follow.

w are the k weights and biases of the network with batch normalization folded in, w^0 those before training, n the number of
training points (Jiang et al. 2020, appendix C; Dziugaite et al. 2020).
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from regioncount.errors import InputError
from regioncount.measures.flatness import PERTURBED_POINTS, Weights, as_vector, perturbed, points_of, weights_of
from regioncount.measures.subject import Subject
from regioncount.regions.evaluation import true_float32

ACCURACY_LOSS = 0.1
MAGNITUDE_EPSILON = 1e-3
NOISE_DRAWS = 10
NOISE_RANGE = (2.0**-20, 2.0**10)
NOISE_BISECTIONS = 5  # of a bracket of 4: a noise within 4.4 %, as far as so few draws say it


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
    return _noise_bound(subject, as_vector(weights_of(subject)))


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
    return _magnitude_bound(subject, as_vector(weights_of(subject)))


def pacbayes_magnitude_initialization(subject: Subject) -> float:
    """`pacbayes_magnitude_origin` with w - w^0 in place of w (Jiang et al. 2020, appendix C). Rescaling layers changes it.

    Raises InputError where sigma' is undefined or the weights before training are not known.
    """
    return _magnitude_bound(subject, _moved(subject))


@functools.lru_cache(maxsize=1)
def noise(subject: Subject) -> float:
    """Sigma of `pacbayes_flatness`."""
    return _largest_noise(subject, lambda sigma, weight: torch.full_like(weight, sigma))


@functools.lru_cache(maxsize=1)
def magnitude_noise(subject: Subject) -> float:
    """Sigma' of `pacbayes_magnitude_flatness`."""
    return _largest_noise(subject, lambda sigma, weight: (sigma**2 * weight.square() + MAGNITUDE_EPSILON**2).sqrt())


def _largest_noise(subject: Subject, deviations: Callable[[float, Tensor], Tensor]) -> float:
    """The noise that is tolerated while 1.044 times as much is not; 0 where none is, infinity where any is."""
    smallest, largest = NOISE_RANGE
    weights = weights_of(subject)
    correct = sum(_correct(subject, weights, batch) for batch in points_of(subject))
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
        moved = perturbed(weights, scales, draw)
        for batch in points_of(subject):
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


def _moved(subject: Subject) -> Tensor:
    """W - w^0."""
    before = dict(subject.initial_network.named_parameters())
    return as_vector(weights_of(subject)) - as_vector({name: before[name].detach() for name in weights_of(subject)})


def _correct(subject: Subject, weights: Weights, batch: tuple[Tensor, Tensor]) -> int:
    inputs, labels = batch
    with torch.no_grad(), true_float32():
        return int((functional_call(subject.network, weights, (inputs,)).argmax(dim=1) == labels).sum())
