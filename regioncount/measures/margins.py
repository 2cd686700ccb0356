"""Margins: how far training points are from the decision boundary."""

import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import output_margins
from regioncount.regions.evaluation import evaluation_mode, true_float32
from regioncount.regions.outputs import as_output
from regioncount.registry import register_measure

PERCENTILE = 0.1


@register_measure(scale_invariant=True)
def output_margin(measured: MeasuredModel) -> float:
    """Return gamma, the 10th percentile over the training set of f(x)_y - max_{j != y} f(x)_j, in units of logits.

    Unlike the minimum, the percentile does not depend on a single point (Jiang et al. 2020, appendix C). It is negative if
    more than a tenth of the points are misclassified. Rescaling layers does not change it.
    """
    return measured.train_margins.double().quantile(PERCENTILE).item()


@register_measure(scale_invariant=True)
def inverse_margin(measured: MeasuredModel) -> float:
    """Return 1 / gamma, where gamma is `output_margin`. Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive.
    """
    return 1 / positive_margin(measured)


@register_measure(scale_invariant=True)
def inverse_squared_margin(measured: MeasuredModel) -> float:
    """Return 1 / gamma^2, where gamma is `output_margin` (Jiang et al. 2020, appendix C).

    Rescaling layers does not change it.

    Raises:
        InputError: If gamma is not positive.
    """
    return 1 / positive_margin(measured) ** 2


@register_measure(scale_invariant=True)
def input_margin(measured: MeasuredModel) -> float:
    """Return the 10th percentile over sampled training points of m(x) / ||grad_x m(x)||_2, in units of normalized input.

    m(x) = f(x)_y - max_{j != y} f(x)_j. To first order, the ratio is the distance to the decision boundary (Elsayed et al.
    2018; Jiang et al. 2019). Rescaling layers does not change it.

    Raises:
        InputError: If the gradient of m is zero at some points.
    """
    model = measured.require_network()
    parts: list[Tensor] = []
    with evaluation_mode(model), true_float32(), torch.enable_grad():
        for inputs, labels in measured.sample_batches():
            inputs = inputs.detach().requires_grad_()
            margins = output_margins(as_output(model(inputs.clone())), labels)
            (gradients,) = torch.autograd.grad(margins.sum(), inputs)
            parts.append((margins / gradients.flatten(1).norm(dim=1)).detach())
    distances = torch.cat(parts).double()
    if not distances.isfinite().all():
        raise InputError("the output margin does not depend on the input at some training points")
    return distances.quantile(PERCENTILE).item()


def positive_margin(measured: MeasuredModel) -> float:
    """Return `output_margin` if it is positive.

    Raises:
        InputError: If the margin is not positive.
    """
    gamma = output_margin(measured)
    if gamma <= 0:
        raise InputError(f"the 10th percentile of the output margin is {gamma:.3g}, not positive: too few points are fitted")
    return gamma
