"""Norms of weights, with batch normalization folded in (Dziugaite et al. 2020).

W_l is the weight, without bias, of the l-th of d layers (convolutions and linear layers), as a matrix (outputs, inputs
x kernel) unless stated otherwise. The network must call each layer once. W_l^0 is the same weight before training, and gamma
is `margins.output_margin`. Measures that are products are returned as logarithms, which do not overflow. Formulas: Jiang et
al. 2020, "Fantastic generalization measures and where to find them", appendix C.

"Rescaling layers" means multiplying one layer by a and the next by 1 / a, which does not change the function of a ReLU
network.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures.layer_norms import frobenius_norms, layers_with_shapes, operator_norms, spectral_norms
from regioncount.measures.margins import output_margin, positive_margin
from regioncount.measures.measured_model import Layer, MeasuredModel
from regioncount.measures.weights import Weights
from regioncount.regions.evaluation import true_float32
from regioncount.registry import register_measure


@register_measure(scale_invariant=True)
def parameter_count(measured: MeasuredModel) -> float:
    """Return the number of parameters, those of batch normalization included. Rescaling layers does not change it."""
    return float(sum(parameter.numel() for parameter in measured.require_network().parameters()))


@register_measure(scale_invariant=False)
def parameter_norm(measured: MeasuredModel) -> float:
    """Return ||w||_2 over all weights and biases. Rescaling layers changes it."""
    return _parameter_vector(measured.network).norm().item()


@register_measure(scale_invariant=False)
def margin_over_norm(measured: MeasuredModel) -> float:
    """Return gamma / ||w||_2 over all weights and biases: the normalized margin of Li et al. 2025.

    Rescaling layers changes the norm, but not gamma.
    """
    return output_margin(measured) / parameter_norm(measured)


@register_measure(scale_invariant=False)
def distance_from_initialization(measured: MeasuredModel) -> float:
    """Return ||w - w^0||_2 over all weights and biases. Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known.
    """
    return (_parameter_vector(measured.network) - _parameter_vector(measured.initial_network)).norm().item()


@register_measure(scale_invariant=False)
def frobenius_distance(measured: MeasuredModel) -> float:
    """Return sum_l ||W_l - W_l^0||_F^2. Rescaling layers changes it.

    Raises:
        InputError: If the weights before training are not known.
    """
    initial = measured.initial_network
    pairs = [(layer, cast(Layer, initial.get_submodule(name))) for name, (layer, _) in layers_with_shapes(measured).items()]
    return sum((after.weight.double() - before.weight.double()).square().sum().item() for after, before in pairs)


@register_measure(scale_invariant=True)
def margin_over_spectral_product(measured: MeasuredModel) -> float:
    """Return gamma / prod_l ||W_l||_2 (Bartlett et al. 2017, without their (2,1) norms).

    Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return output_margin(measured) / math.exp(log_product_spectral(measured) / 2)


@register_measure(scale_invariant=True)
def log_product_frobenius(measured: MeasuredModel) -> float:
    """Return log prod_l ||W_l||_F^2. Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return _log_product(frobenius_norms(measured))


@register_measure(scale_invariant=True)
def log_product_frobenius_over_margin(measured: MeasuredModel) -> float:
    """Return log(prod_l ||W_l||_F^2 / gamma^2). Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the weight of a layer is zero.
    """
    return log_product_frobenius(measured) - 2 * math.log(positive_margin(measured))


@register_measure(scale_invariant=True)
def sum_frobenius(measured: MeasuredModel) -> float:
    """Return d (prod_l ||W_l||_F^2)^(1/d), the minimum of sum_l ||W_l||_F^2 over rescalings.

    Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return _balanced_sum(log_product_frobenius(measured), measured)


@register_measure(scale_invariant=True)
def sum_frobenius_over_margin(measured: MeasuredModel) -> float:
    """Return d (prod_l ||W_l||_F^2 / gamma^2)^(1/d). Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the weight of a layer is zero.
    """
    return _balanced_sum(log_product_frobenius_over_margin(measured), measured)


@register_measure(scale_invariant=True)
def log_product_spectral(measured: MeasuredModel) -> float:
    """Return log prod_l ||W_l||_2^2. Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return _log_product(spectral_norms(measured))


@register_measure(scale_invariant=True)
def log_product_spectral_over_margin(measured: MeasuredModel) -> float:
    """Return log(prod_l ||W_l||_2^2 / gamma^2). Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the weight of a layer is zero.
    """
    return log_product_spectral(measured) - 2 * math.log(positive_margin(measured))


@register_measure(scale_invariant=True)
def sum_spectral(measured: MeasuredModel) -> float:
    """Return d (prod_l ||W_l||_2^2)^(1/d). Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return _balanced_sum(log_product_spectral(measured), measured)


@register_measure(scale_invariant=True)
def sum_spectral_over_margin(measured: MeasuredModel) -> float:
    """Return d (prod_l ||W_l||_2^2 / gamma^2)^(1/d). Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the weight of a layer is zero.
    """
    return _balanced_sum(log_product_spectral_over_margin(measured), measured)


@register_measure(scale_invariant=True)
def frobenius_over_spectral(measured: MeasuredModel) -> float:
    """Return sum_l ||W_l||_F^2 / ||W_l||_2^2, the sum of stable ranks. Rescaling layers does not change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    spectral = spectral_norms(measured)
    _require_nonzero(spectral)
    return float((frobenius_norms(measured) / spectral).square().sum())


@register_measure(scale_invariant=True)
def log_product_operator(measured: MeasuredModel) -> float:
    """Return log prod_l sigma_l^2, where sigma_l is the largest singular value of layer l as a map of whole images.

    Zero padding and stride are part of this map; Sedghi et al. 2019 assume circular padding. Rescaling layers does not
    change it.

    Raises:
        InputError: If the weight of a layer is zero.
    """
    return _log_product(operator_norms(measured))


@register_measure(scale_invariant=True)
def log_product_operator_over_margin(measured: MeasuredModel) -> float:
    """Return log(prod_l sigma_l^2 / gamma^2), with the sigma_l of `log_product_operator`.

    For a chain of layers, it bounds the logarithm of the squared ratio of Lipschitz constant and margin from above.
    Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the weight of a layer is zero.
    """
    return log_product_operator(measured) - 2 * math.log(positive_margin(measured))


@register_measure(scale_invariant=True)
def log_path_norm(measured: MeasuredModel) -> float:
    """Return log sum_k f(1; w^2)_k: the sum of the logits of an input of ones, with every parameter squared.

    In a ReLU network, the sum runs over all paths from an input or a bias to a logit; each path contributes the product of
    its squared weights (Neyshabur et al. 2015). With other nonlinearities, the same expression is not a sum over paths.
    Rescaling layers does not change it.

    Raises:
        InputError: If the weights of the layers are not all that the model computes with, or the sum is not positive and
            finite.
    """
    layers_with_shapes(measured)  # undefined if the norms of its layers are
    squares = {name: parameter.double().square() for name, parameter in measured.network.named_parameters()}
    inputs = torch.ones_like(measured.sample[0][:1], dtype=torch.float64)
    with torch.no_grad():
        total = functional_call(measured.network, squares, (inputs,)).sum().item()
    if not (total > 0 and math.isfinite(total)):
        raise InputError(f"the path norm is {total:g}")
    return math.log(total)


@register_measure(scale_invariant=True)
def log_path_norm_over_margin(measured: MeasuredModel) -> float:
    """Return log(path norm / gamma^2); see `log_path_norm`. Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive, or the path norm is undefined.
    """
    return log_path_norm(measured) - 2 * math.log(positive_margin(measured))


@register_measure(scale_invariant=True)
def fisher_rao_norm(measured: MeasuredModel) -> float:
    """Return sqrt(mean_i <w, grad_w loss_i>^2) over sampled training points, where w are all weights and biases.

    Liang et al. 2019, with the empirical Fisher information. Rescaling layers does not change it.
    """
    network = measured.network
    weights: Weights = dict(network.named_parameters())
    squares: list[Tensor] = []
    with true_float32():
        for inputs, labels in measured.sample_batches():

            def losses(parameters: Weights, inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
                return cross_entropy(functional_call(network, parameters, (inputs,)), labels, reduction="none")

            with torch.no_grad():
                derivatives: Tensor = jvp(losses, (weights,), (weights,))[1]
            squares.append(derivatives.double().square())
    return torch.cat(squares).mean().sqrt().item()


def _parameter_vector(network: nn.Module) -> Tensor:
    """Return all parameters, (k,), in float64."""
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()])


def _log_product(norms: Tensor) -> float:
    """Return log prod_l n_l^2."""
    _require_nonzero(norms)
    return 2 * norms.log().sum().item()


def _require_nonzero(norms: Tensor) -> None:
    if not (norms > 0).all():
        raise InputError("a layer's weight is zero")


def _balanced_sum(log_product: float, measured: MeasuredModel) -> float:
    """Return d exp(log_product / d)."""
    depth = len(measured.layers)
    return depth * math.exp(log_product / depth)
