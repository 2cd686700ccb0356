"""Distances from the weights before training, relative to norms, as the authors of the paper computed them.

W_l, W_l^0 and ||.||_2 are those of `regioncount.measures.norms`, with batch normalization folded in; the authors do not
fold. Their code calls these quantities PAC-Bayes measures (Li et al. 2025), but it searches for no noise. They are computed
on request only, since `regioncount.measures.pacbayes` has the measures that the literature calls so.
"""

import math
from typing import cast

from regioncount.errors import InputError
from regioncount.measures.layer_norms import layers_with_shapes, spectral_norms
from regioncount.measures.margins import positive_margin
from regioncount.measures.measured_model import Layer, MeasuredModel
from regioncount.registry import register_measure


@register_measure(scale_invariant=False, on_request=True)
def relative_distance(measured: MeasuredModel) -> float:
    """Return sum_l ||W_l - W_l^0||_F^2 / ||W_l||_F^2 (their pacbayes_init). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or the weight of a layer is zero.
    """
    pairs = _squared_distances_and_norms(measured)
    if any(norm == 0 for _, norm in pairs):
        raise InputError("the weight of a layer is zero")
    return sum(distance / norm for distance, norm in pairs)


@register_measure(scale_invariant=False, on_request=True)
def log_relative_distance(measured: MeasuredModel) -> float:
    """Return the logarithm of `relative_distance` (their pacbayes_orig and pacbayes_flatness). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known or have not changed, or the weight of a layer is zero.
    """
    return _log(relative_distance(measured))


@register_measure(scale_invariant=False, on_request=True)
def log_distance_plus_norm(measured: MeasuredModel) -> float:
    """Return log sum_l (||W_l - W_l^0||_F^2 + ||W_l||_F^2) (their pacbayes_mag_init). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or all weights are zero.
    """
    return _log(sum(distance + norm for distance, norm in _squared_distances_and_norms(measured)))


@register_measure(scale_invariant=False, on_request=True)
def log_distance_plus_norm_over_spectral(measured: MeasuredModel) -> float:
    """Return `log_distance_plus_norm` minus log sum_l ||W_l||_2 (their pacbayes_mag_orig). Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known, or all weights are zero.
    """
    return log_distance_plus_norm(measured) - _log(spectral_norms(measured).sum().item())


@register_measure(scale_invariant=True, on_request=True)
def root_inverse_margin(measured: MeasuredModel) -> float:
    """Return 1 / sqrt(gamma), with which the authors correlate instead of 1 / gamma. Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive.
    """
    return positive_margin(measured) ** -0.5


def _squared_distances_and_norms(measured: MeasuredModel) -> list[tuple[float, float]]:
    """Return ||W_l - W_l^0||_F^2 and ||W_l||_F^2 of each layer."""
    initial = measured.initial_network
    pairs: list[tuple[float, float]] = []
    for name, (layer, _) in layers_with_shapes(measured).items():
        after, before = layer.weight.double(), cast(Layer, initial.get_submodule(name)).weight.double()
        pairs.append(((after - before).square().sum().item(), after.square().sum().item()))
    return pairs


def _log(value: float) -> float:
    if value == 0:
        raise InputError("it is the logarithm of 0")
    return math.log(value)
