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
NOISE_STEP = 2 ** (1 / 16)  # between noise levels: 4.4 %, about the precision of this number of draws
NOISE_STEPS = (-320, 160)  # the weakest and the strongest level, 2^-20 and 2^10
# The level is first located roughly, in strides of a factor of 4, where most evaluations are decided by few points.
ROUGH_DRAWS, ROUGH_POINTS, ROUGH_STRIDE = 3, 125, 32


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
    """Return the largest tolerated noise level, to within one step; 0 if none is tolerated, infinity if all are.

    The search around the rough level evaluates all draws and points, so that the result does not depend on that level if
    the accuracy falls with the noise. The same draws are used at each level.
    """
    weights = weights_of(measured)

    def is_tolerated(step: int, draws: int, points: int) -> bool:
        scales = {name: deviations(NOISE_STEP**step, weight) for name, weight in weights.items()}
        return _is_tolerated(measured, weights, scales, draws, points)

    rough = last_true(lambda step: is_tolerated(step, ROUGH_DRAWS, ROUGH_POINTS), 0, ROUGH_STRIDE, NOISE_STEPS)
    start = min(max(rough, NOISE_STEPS[0]), NOISE_STEPS[1])
    step = last_true(lambda step: is_tolerated(step, NOISE_DRAWS, PERTURBED_POINTS), start, 1, NOISE_STEPS)
    return math.inf if step == NOISE_STEPS[1] else 0.0 if step < NOISE_STEPS[0] else NOISE_STEP**step


def last_true(predicate: Callable[[int], bool], start: int, stride: int, limits: tuple[int, int]) -> int:
    """Return the last integer at which a predicate holds that holds up to some integer and fails after it.

    From `start`, the search moves by `stride`, then by strides that double, until the predicate changes, and bisects.

    Args:
        predicate: A function of an integer within the limits.
        start: Where the search begins, within the limits.
        stride: The length of its first stride.
        limits: The first and the last integer of the range.

    Returns:
        The integer; limits[0] - 1 if the predicate holds nowhere.
    """
    first, last = limits
    holds = predicate(start)
    low, high = (start, last + 1) if holds else (first - 1, start)  # it holds at low and fails at high, or beyond the range
    position = start
    while high - low > 1 and first <= (position := position + stride if holds else position - stride) <= last:
        if predicate(position):
            low = position
        else:
            high = position
        if (position == low) != holds:
            break
        stride *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if predicate(middle) else (low, middle)
    return low


def _require_sigma(sigma: float) -> float:
    """Return sigma, or raise if it is undefined. The search does not raise, because `lru_cache` does not cache errors."""
    if sigma == 0:
        raise InputError(
            f"noise of {NOISE_STEP ** NOISE_STEPS[0]:g} on the weights lowers the accuracy by more than {ACCURACY_LOSS}"
        )
    if sigma == math.inf:
        raise InputError(
            f"noise of {NOISE_STEP ** NOISE_STEPS[1]:g} on the weights does not lower the accuracy by {ACCURACY_LOSS}"
        )
    return sigma


def _is_tolerated(measured: MeasuredModel, weights: Weights, scales: Weights, draws: int, points: int) -> bool:
    """Return whether noise of these deviations lowers the mean accuracy by at most `ACCURACY_LOSS`.

    The accuracy is that of some draws on some sampled points. The evaluation stops as soon as the answer is known.
    """
    points = min(points, len(measured.sample[0]))
    needed = draws * (_correct_without_noise(measured, points) - ACCURACY_LOSS * points) - 1e-6
    correct, remaining = 0, draws * points
    for draw in range(draws):
        moved = perturbed(weights, scales, draw)
        for batch in measured.sample_batches(points):
            correct += _count_correct(measured, moved, batch)
            remaining -= len(batch[1])
            if correct >= needed or correct + remaining < needed:
                return correct >= needed
    return correct >= needed


@functools.lru_cache(maxsize=2)
def _correct_without_noise(measured: MeasuredModel, points: int) -> int:
    return sum(_count_correct(measured, weights_of(measured), batch) for batch in measured.sample_batches(points))


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
