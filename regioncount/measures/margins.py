"""Margins: how far training points are from being classified otherwise."""

import torch

from regioncount.errors import InputError
from regioncount.measures.subject import Subject, output_margins
from regioncount.regions.evaluation import evaluation_mode, true_float32

PERCENTILE = 0.1


def output_margin(subject: Subject) -> float:
    """gamma: the 10th percentile over the training set of f(x)_y - max_{j != y} f(x)_j, in units of logits.

    Jiang et al. 2020, section 6 and appendix C (the percentile is robust where the minimum is one point). Negative where
    more than a tenth is misclassified. Rescaling layers does not change it.
    """
    return subject.train_outputs.margins.double().quantile(PERCENTILE).item()


def inverse_margin(subject: Subject) -> float:
    """1 / gamma, with gamma as of `output_margin`. Rescaling layers does not change it.

    Raises InputError where gamma is not positive: its inverse says nothing then.
    """
    return 1 / positive_margin(subject)


def inverse_squared_margin(subject: Subject) -> float:
    """1 / gamma^2 (Jiang et al. 2020, equation 26), with gamma as of `output_margin`.

    Rescaling layers does not change it. Raises InputError where gamma is not positive.
    """
    return 1 / positive_margin(subject) ** 2


def input_margin(subject: Subject) -> float:
    """The 10th percentile over sampled training points of m(x) / ||grad_x m(x)||_2, in units of normalized input.

    m(x) = f(x)_y - max_{j != y} f(x)_j: to first order, the distance to the decision boundary (Elsayed et al. 2018; Jiang et
    al. 2019). Rescaling layers does not change it. Raises InputError where the margin has no slope.
    """
    distances = []
    with evaluation_mode(subject.model), true_float32(), torch.enable_grad():
        for inputs, labels in subject.sample_batches():
            inputs = inputs.detach().requires_grad_()
            margins = output_margins(subject.model(inputs), labels)
            (slopes,) = torch.autograd.grad(margins.sum(), inputs)
            distances.append((margins / slopes.flatten(1).norm(dim=1)).detach())
    distances = torch.cat(distances).double()
    if not distances.isfinite().all():
        raise InputError("the output margin does not depend on the input at some training points")
    return distances.quantile(PERCENTILE).item()


def positive_margin(subject: Subject) -> float:
    """`output_margin`; InputError where it is not positive."""
    gamma = output_margin(subject)
    if gamma <= 0:
        raise InputError(f"the 10th percentile of the output margin is {gamma:.3g}, not positive: too few points are fitted")
    return gamma
