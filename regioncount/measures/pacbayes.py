"""PAC-Bayes measures: how much noise on the weights the accuracy tolerates, and the bounds that follow.

w are the k weights and biases of the network with batch normalization folded in, w^0 those before training, and n is the
number of training points. "Rescaling layers" means multiplying one layer by a and the next by 1 / a. Formulas: Jiang et al.
2020, appendix C; Dziugaite et al. 2020.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import Batch
from regioncount.measures.weights import PERTURBED_POINTS, Weights, as_vector, perturbed, weights_of
from regioncount.regions.evaluation import true_float32
from regioncount.registry import register_measure

ACCURACY_LOSS = 0.1
MAGNITUDE_EPSILON = 1e-3
NOISE_DRAWS = 10
NOISE_RANGE = (2.0**-20, 2.0**10)
NOISE_BISECTIONS = 5  # of a factor of 4: sigma within 4.4 %, about the precision of this number of draws


@register_measure(scale_invariant=False)
def pacbayes_flatness(measured: MeasuredModel) -> float:
    """Return 1 / sigma^2, where noise N(0, sigma^2) on each weight lowers the mean accuracy by at most 0.1.

    sigma is the largest such deviation. The accuracy is computed on sampled training points (Jiang et al. 2020,
    appendix C). Rescaling layers changes it.

    Raises:
        InputError: If the weakest noise lowers the accuracy by more than 0.1, or the strongest by less.
    """
    return 1 / _require_sigma(noise(measured)) ** 2


@register_measure(scale_invariant=False)
def pacbayes_origin(measured: MeasuredModel) -> float:
    """Return sqrt((||w||_2^2 / (4 sigma^2) + log(n / sigma) + 10) / n), with the sigma of `pacbayes_flatness`.

    This is the bound of Jiang et al. 2020 (appendix C) with the origin as the prior's mean, on the scale of an error
    (Dziugaite et al. 2020). Rescaling layers changes it.

    Raises:
        InputError: If sigma is undefined.
    """
    return _noise_bound(measured, as_vector(weights_of(measured)))


@register_measure(scale_invariant=False)
def pacbayes_initialization(measured: MeasuredModel) -> float:
    """Return `pacbayes_origin` with the distance ||w - w^0||_2 in place of ||w||_2. Rescaling layers changes it.

    Raises:
        InputError: If sigma is undefined, or the weights before training are not known.
    """
    return _noise_bound(measured, _difference_from_initialization(measured))


@register_measure(scale_invariant=False)
def pacbayes_magnitude_flatness(measured: MeasuredModel) -> float:
    """Return 1 / sigma'^2, where sigma' is the sigma of `pacbayes_flatness` for noise N(0, sigma'^2 w_i^2 + 0.001^2).

    The noise on weight i depends on its magnitude (Jiang et al. 2020, appendix C). Rescaling layers changes it only through
    the constant 0.001: little, unless the weights of a layer are small.

    Raises:
        InputError: If the weakest noise lowers the accuracy by more than 0.1, or the strongest by less.
    """
    return 1 / _require_sigma(magnitude_noise(measured)) ** 2


@register_measure(scale_invariant=False)
def pacbayes_magnitude_origin(measured: MeasuredModel) -> float:
    """Return sqrt((1/4 sum_i log((e^2 + (s^2 + 1) ||w||_2^2 / k) / (e^2 + s^2 w_i^2)) + log(n / s) + 10) / n).

    s is the sigma' of `pacbayes_magnitude_flatness`, and e = 0.001. This is the bound of Jiang et al. 2020 (appendix C) on
    the scale of an error (Dziugaite et al. 2020), with one difference: the paper has w - w^0 in this denominator. This
    function has w, which determines the noise that defines sigma'. Rescaling layers changes it.

    Raises:
        InputError: If sigma' is undefined.
    """
    return _magnitude_bound(measured, as_vector(weights_of(measured)))


@register_measure(scale_invariant=False)
def pacbayes_magnitude_initialization(measured: MeasuredModel) -> float:
    """Return `pacbayes_magnitude_origin` with w - w^0 in place of w (Jiang et al. 2020, appendix C).

    Rescaling layers changes it.

    Raises:
        InputError: If sigma' is undefined, or the weights before training are not known.
    """
    return _magnitude_bound(measured, _difference_from_initialization(measured))


@functools.lru_cache(maxsize=1)
def noise(measured: MeasuredModel) -> float:
    """Return the sigma of `pacbayes_flatness`; 0 or infinity if it is undefined."""
    return _largest_noise(measured, lambda sigma, weight: torch.full_like(weight, sigma))


@functools.lru_cache(maxsize=1)
def magnitude_noise(measured: MeasuredModel) -> float:
    """Return the sigma' of `pacbayes_magnitude_flatness`; 0 or infinity if it is undefined."""
    return _largest_noise(measured, lambda sigma, weight: (sigma**2 * weight.square() + MAGNITUDE_EPSILON**2).sqrt())


def _largest_noise(measured: MeasuredModel, deviations: Callable[[float, Tensor], Tensor]) -> float:
    """Return the largest tolerated noise level, to within a factor of 1.044; 0 if none is tolerated, infinity if all are."""
    smallest, largest = NOISE_RANGE
    weights = weights_of(measured)
    correct = sum(_count_correct(measured, weights, batch) for batch in measured.sample_batches(PERTURBED_POINTS))
    needed = NOISE_DRAWS * (correct - ACCURACY_LOSS * min(PERTURBED_POINTS, len(measured.sample[0]))) - 1e-6

    def is_tolerated(sigma: float) -> bool:
        scales = {name: deviations(sigma, weight) for name, weight in weights.items()}
        return _reaches(measured, weights, scales, needed)

    sigma = 1.0
    # Excessive noise is detected after few evaluations, so the search starts from strong noise.
    if is_tolerated(sigma):
        while is_tolerated(4 * sigma):
            sigma *= 4
            if sigma >= largest:
                return math.inf
    else:
        sigma /= 4
        while not is_tolerated(sigma):
            sigma /= 4
            if sigma < smallest:
                return 0.0
    factor = 4.0
    for _ in range(NOISE_BISECTIONS):
        factor **= 0.5
        if is_tolerated(sigma * factor):
            sigma *= factor
    return sigma


def _require_sigma(sigma: float) -> float:
    """Return sigma, or raise if it is undefined. The search does not raise, because `lru_cache` does not cache errors."""
    if sigma == 0:
        raise InputError(f"noise of {NOISE_RANGE[0]:g} on the weights lowers the accuracy by more than {ACCURACY_LOSS}")
    if sigma == math.inf:
        raise InputError(f"noise of {NOISE_RANGE[1]:g} on the weights does not lower the accuracy by {ACCURACY_LOSS}")
    return sigma


def _reaches(measured: MeasuredModel, weights: Weights, scales: Weights, needed: float) -> bool:
    """Return whether at least `needed` points over all draws are classified correctly. Stop as soon as this is decided."""
    correct, remaining = 0, NOISE_DRAWS * min(PERTURBED_POINTS, len(measured.sample[0]))
    for draw in range(NOISE_DRAWS):
        moved = perturbed(weights, scales, draw)
        for batch in measured.sample_batches(PERTURBED_POINTS):
            correct += _count_correct(measured, moved, batch)
            remaining -= len(batch[1])
            if correct >= needed or correct + remaining < needed:
                return correct >= needed
    return correct >= needed


def _noise_bound(measured: MeasuredModel, vector: Tensor) -> float:
    sigma, number = _require_sigma(noise(measured)), measured.train_size
    bound = vector.square().sum().item() / (4 * sigma**2) + math.log(number / sigma) + 10
    return math.sqrt(bound / number)


def _magnitude_bound(measured: MeasuredModel, vector: Tensor) -> float:
    sigma, number = _require_sigma(magnitude_noise(measured)), measured.train_size
    squares = vector.square()
    ratios = (MAGNITUDE_EPSILON**2 + (sigma**2 + 1) * squares.mean()) / (MAGNITUDE_EPSILON**2 + sigma**2 * squares)
    bound = ratios.log().sum().item() / 4 + math.log(number / sigma) + 10
    return math.sqrt(bound / number)


def _difference_from_initialization(measured: MeasuredModel) -> Tensor:
    """Return w - w^0, (k,)."""
    weights = weights_of(measured)
    initial = dict(measured.initial_network.named_parameters())
    return as_vector(weights) - as_vector({name: initial[name].detach() for name in weights})


def _count_correct(measured: MeasuredModel, weights: Weights, batch: Batch) -> int:
    inputs, labels = batch
    with torch.no_grad(), true_float32():
        return int((functional_call(measured.network, weights, (inputs,)).argmax(dim=1) == labels).sum())
