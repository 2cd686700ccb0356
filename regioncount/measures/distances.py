"""Distances from the weights before training, relative to norms, as the authors of the paper computed them.

W_l, W_l^0 and ||.||_2 are those of `regioncount.measures.norms`, with batch normalization folded in. The authors' code calls
some of these quantities PAC-Bayes measures (Li et al. 2025), but it searches for no noise; like that of Dziugaite et al.
2020, it returns the square roots of its measures. Unlike here, it folds only the scale of batch normalizations, and the
three that follow a 1 x 1 convolution of a ResNet remain as layers of ones, which add 896 to the sums of squared norms of
ResNet-18. These measures are computed on request only, since `regioncount.measures.pacbayes` has the measures that the
literature calls so.
"""

import math
from typing import cast

from regioncount.errors import InputError
from regioncount.measures.layer_norms import layers_with_shapes, spectral_norms
from regioncount.measures.margins import positive_margin
from regioncount.measures.measured_model import Layer, MeasuredModel
from regioncount.measures.norms import frobenius_distance
from regioncount.registry import register_measure


@register_measure(scale_invariant=False, on_request=True)
def root_frobenius_distance(measured: MeasuredModel) -> float:
    """Return sqrt(sum_l ||W_l - W_l^0||_F^2), the square root of `frobenius_distance`. Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known.
    """
    return math.sqrt(frobenius_distance(measured))


@register_measure(scale_invariant=True, on_request=True)
def root_inverse_margin(measured: MeasuredModel) -> float:
    """Return 1 / sqrt(gamma) (their inverse margin). Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive.
    """
    return positive_margin(measured) ** -0.5


@register_measure(scale_invariant=False, on_request=True)
def root_inverse_margin_over_distance(measured: MeasuredModel) -> float:
    """Return `root_inverse_margin` divided by `root_frobenius_distance`. Rescaling layers changes it.

    Raises:
        InputError: If gamma is not positive, or the weights before training are not known or have not changed.
    """
    distance = root_frobenius_distance(measured)
    if distance == 0:
        raise InputError("the weights have not changed")
    return root_inverse_margin(measured) / distance


@register_measure(scale_invariant=False, on_request=True)
def root_relative_distance(measured: MeasuredModel) -> float:
    """Return sqrt(sum_l ||W_l - W_l^0||_F^2 / ||W_l||_F^2) (their pacbayes_init). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or the weight of a layer is zero.
    """
    return math.sqrt(_relative_distance(measured))


@register_measure(scale_invariant=False, on_request=True)
def root_log_relative_distance(measured: MeasuredModel) -> float:
    """Return sqrt(log sum_l ||W_l - W_l^0||_F^2 / ||W_l||_F^2) (their pacbayes_orig and pacbayes_flatness).

    Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, the weight of a layer is zero, or the sum is below 1.
    """
    return _root_log(_relative_distance(measured))


@register_measure(scale_invariant=False, on_request=True)
def root_log_distance_plus_norm(measured: MeasuredModel) -> float:
    """Return sqrt(log sum_l (||W_l - W_l^0||_F^2 + ||W_l||_F^2)) (their pacbayes_mag_init). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or the sum is below 1.
    """
    return _root_log(_distance_plus_norm(measured))


@register_measure(scale_invariant=False, on_request=True)
def root_log_distance_plus_norm_over_spectral(measured: MeasuredModel) -> float:
    """Return sqrt(log(sum_l (||W_l - W_l^0||_F^2 + ||W_l||_F^2) / sum_l ||W_l||_2^2)) (their pacbayes_mag_orig).

    Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or all weights are zero.
    """
    spectral = spectral_norms(measured).square().sum().item()
    if spectral == 0:
        raise InputError("all weights are zero")
    return _root_log(_distance_plus_norm(measured) / spectral)


def _squared_distances_and_norms(measured: MeasuredModel) -> list[tuple[float, float]]:
    """Return ||W_l - W_l^0||_F^2 and ||W_l||_F^2 of each layer."""
    initial = measured.initial_network
    pairs: list[tuple[float, float]] = []
    for name, (layer, _) in layers_with_shapes(measured).items():
        after, before = layer.weight.double(), cast(Layer, initial.get_submodule(name)).weight.double()
        pairs.append(((after - before).square().sum().item(), after.square().sum().item()))
    return pairs


def _relative_distance(measured: MeasuredModel) -> float:
    pairs = _squared_distances_and_norms(measured)
    if any(norm == 0 for _, norm in pairs):
        raise InputError("the weight of a layer is zero")
    return sum(distance / norm for distance, norm in pairs)


def _distance_plus_norm(measured: MeasuredModel) -> float:
    return sum(distance + norm for distance, norm in _squared_distances_and_norms(measured))


def _root_log(value: float) -> float:
    if value < 1:
        raise InputError(f"it is the square root of the logarithm of {value:.3g}, which is below 1")
    return math.sqrt(math.log(value))
