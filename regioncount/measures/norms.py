"""Norms of weights, batch normalization folded in first (Dziugaite et al. 2020).

W_l is the weight of the l-th of d layers, convolution or linear, as a matrix (outputs, inputs x kernel) unless said
otherwise; biases are not in it. W_l^0 is the same before training, gamma is `margins.output_margin`. Products come as their
logarithms, which do not overflow. Formulas: Jiang et al. 2020, "Fantastic generalization measures", appendix C.
"""

import copy
import functools
import math

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures.margins import output_margin, positive_margin
from regioncount.measures.subject import Subject
from regioncount.regions.evaluation import true_float32


def parameter_count(subject: Subject) -> float:
    """The number of trained parameters, those of batch normalization included. Rescaling layers does not change it."""
    return float(sum(parameter.numel() for parameter in subject.model.parameters()))


def parameter_norm(subject: Subject) -> float:
    """||w||_2 over all weights and biases. Rescaling layers changes it."""
    return _vector(subject.network).norm().item()


def distance_from_initialization(subject: Subject) -> float:
    """||w - w^0||_2 over all weights and biases. Rescaling layers changes it.

    Raises InputError where the weights before training are not known.
    """
    return (_vector(subject.network) - _vector(subject.initial_network)).norm().item()


def frobenius_distance(subject: Subject) -> float:
    """sum_l ||W_l - W_l^0||_F^2. Rescaling layers changes it.

    Raises InputError where the weights before training are not known.
    """
    before = subject.initial_network
    pairs = [(layer.weight, before.get_submodule(name).weight) for name, layer in subject.layers.items()]
    return sum((after.double() - at_start.double()).square().sum().item() for after, at_start in pairs)


def log_product_frobenius(subject: Subject) -> float:
    """Log prod_l ||W_l||_F^2. Rescaling one layer by a and the next by 1/a does not change it.

    Raises InputError where a layer is zero.
    """
    return _log_product(frobenius_norms(subject))


def log_product_frobenius_over_margin(subject: Subject) -> float:
    """log(prod_l ||W_l||_F^2 / gamma^2). Rescaling one layer by a and the next by 1/a does not change it.

    Raises InputError where gamma is not positive or a layer is zero.
    """
    return log_product_frobenius(subject) - 2 * math.log(positive_margin(subject))


def sum_frobenius(subject: Subject) -> float:
    """D (prod_l ||W_l||_F^2)^(1/d): the least that the sum of squares becomes when layers are rescaled.

    Rescaling one layer by a and the next by 1/a does not change it. Raises InputError where a layer is zero.
    """
    return _balanced_sum(log_product_frobenius(subject), subject)


def sum_frobenius_over_margin(subject: Subject) -> float:
    """D (prod_l ||W_l||_F^2 / gamma^2)^(1/d). Rescaling one layer by a and the next by 1/a does not change it.

    Raises InputError where gamma is not positive or a layer is zero.
    """
    return _balanced_sum(log_product_frobenius_over_margin(subject), subject)


def log_product_spectral(subject: Subject) -> float:
    """Log prod_l ||W_l||_2^2, of the reshaped matrices. Rescaling one layer by a and the next by 1/a does not change it.

    Raises InputError where a layer is zero.
    """
    return _log_product(spectral_norms(subject))


def log_product_spectral_over_margin(subject: Subject) -> float:
    """log(prod_l ||W_l||_2^2 / gamma^2), of the reshaped matrices.

    Rescaling one layer by a and the next by 1/a does not change it. Raises InputError where gamma is not positive or a
    layer is zero.
    """
    return log_product_spectral(subject) - 2 * math.log(positive_margin(subject))


def sum_spectral(subject: Subject) -> float:
    """D (prod_l ||W_l||_2^2)^(1/d), of the reshaped matrices.

    Rescaling one layer by a and the next by 1/a does not change it. Raises InputError where a layer is zero.
    """
    return _balanced_sum(log_product_spectral(subject), subject)


def sum_spectral_over_margin(subject: Subject) -> float:
    """D (prod_l ||W_l||_2^2 / gamma^2)^(1/d), of the reshaped matrices.

    Rescaling one layer by a and the next by 1/a does not change it. Raises InputError where gamma is not positive or a
    layer is zero.
    """
    return _balanced_sum(log_product_spectral_over_margin(subject), subject)


def frobenius_over_spectral(subject: Subject) -> float:
    """sum_l ||W_l||_F^2 / ||W_l||_2^2, the sum of stable ranks. Rescaling layers does not change it.

    Raises InputError where a layer is zero.
    """
    _log_product(spectral_norms(subject))
    return float((frobenius_norms(subject) / spectral_norms(subject)).square().sum())


def log_product_operator(subject: Subject) -> float:
    """Log prod_l sigma_l^2, sigma_l the largest singular value of layer l as a map of whole images.

    Zero padding and stride are part of that map (Sedghi et al. 2019 take circular padding). Rescaling one layer by a and
    the next by 1/a does not change it. Raises InputError where a layer is zero.
    """
    return _log_product(operator_norms(subject))


def log_product_operator_over_margin(subject: Subject) -> float:
    """log(prod_l sigma_l^2 / gamma^2), sigma_l as of `log_product_operator`.

    Where layers follow one another, an upper bound on the Lipschitz constant over the margin, squared. Rescaling one layer
    by a and the next by 1/a does not change it. Raises InputError where gamma is not positive or a layer is zero.
    """
    return log_product_operator(subject) - 2 * math.log(positive_margin(subject))


def margin_over_norm(subject: Subject) -> float:
    """Gamma / ||w||_2, over the norm of all weights and biases: the normalized margin of Li et al. 2025.

    Rescaling layers changes it: the norm moves, the margin does not.
    """
    return output_margin(subject) / parameter_norm(subject)


def margin_over_spectral_product(subject: Subject) -> float:
    """Gamma / prod_l ||W_l||_2, of the reshaped matrices (Bartlett et al. 2017, without their (2,1) norms).

    Rescaling one layer by a and the next by 1/a does not change it. Raises InputError where a layer is zero.
    """
    return output_margin(subject) / math.exp(log_product_spectral(subject) / 2)


def log_path_norm(subject: Subject) -> float:
    """Log sum_k f(1; w^2)_k: every parameter squared, the input all ones, the logits summed (Neyshabur et al. 2015).

    In a network of ReLUs, the sum over all paths from an input (or a bias) to a logit of the product of squared weights.
    Where there are other nonlinearities it is the same expression, and no such sum. Rescaling layers does not change it.
    """
    network = copy.deepcopy(subject.network).double()
    inputs = torch.ones_like(subject.sample[0][:1], dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.square_()
        total = network(inputs).sum().item()
    if not (total > 0 and math.isfinite(total)):
        raise InputError(f"the path norm is {total:g}")
    return math.log(total)


def log_path_norm_over_margin(subject: Subject) -> float:
    """log(path norm / gamma^2), see `log_path_norm`. Rescaling layers does not change it.

    Raises InputError where gamma is not positive.
    """
    return log_path_norm(subject) - 2 * math.log(positive_margin(subject))


def fisher_rao_norm(subject: Subject) -> float:
    """sqrt(mean_i <w, grad_w loss_i>^2) over sampled training points, w all weights and biases.

    Liang et al. 2019, with the empirical Fisher information. Rescaling layers does not change it.
    """
    weights = dict(subject.network.named_parameters())
    network = subject.network
    squares = []
    with true_float32():
        for inputs, labels in subject.sample_batches():

            def losses(parameters, inputs=inputs, labels=labels):
                return cross_entropy(functional_call(network, parameters, (inputs,)), labels, reduction="none")

            with torch.no_grad():
                _, along = jvp(losses, (weights,), (weights,))
            squares.append(along.double().square())
    return torch.cat(squares).mean().sqrt().item()


@functools.lru_cache(maxsize=1)
def frobenius_norms(subject: Subject) -> Tensor:
    """||W_l||_F of each layer: (d,)."""
    return torch.stack([layer.weight.detach().double().norm().cpu() for layer in subject.layers.values()])


@functools.lru_cache(maxsize=1)
def spectral_norms(subject: Subject) -> Tensor:
    """||W_l||_2 of each layer's weight reshaped to (outputs, inputs x kernel): (d,)."""
    matrices = [layer.weight.detach().flatten(1).double().cpu() for layer in subject.layers.values()]
    return torch.stack([torch.linalg.matrix_norm(matrix, 2) for matrix in matrices])


@functools.lru_cache(maxsize=1)
def operator_norms(subject: Subject) -> Tensor:
    """The largest singular value of each layer as a linear map of what it is given: (d,)."""
    shapes = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        shapes[layer] = inputs[0].shape[1:]

    hooks = [layer.register_forward_pre_hook(note) for layer in subject.layers.values()]
    with torch.no_grad():
        subject.network(subject.sample[0][:1])
    for hook in hooks:
        hook.remove()
    unused = [name for name, layer in subject.layers.items() if layer not in shapes]
    if unused:
        raise InputError(f"the layer {unused[0]} takes no part in what the model computes")
    return torch.tensor([_operator_norm(layer, shapes[layer]) for layer in subject.layers.values()], dtype=torch.float64)


def _operator_norm(layer: nn.Module, shape: torch.Size) -> float:
    """The largest singular value of a layer without its bias, applied to one input of this shape, in float32."""
    if isinstance(layer, nn.Linear):
        return torch.linalg.matrix_norm(layer.weight.detach().double(), 2).item()
    linear = copy.deepcopy(layer).requires_grad_(False)
    linear.bias = None
    example = torch.zeros(1, *shape, dtype=layer.weight.dtype, device=layer.weight.device)

    def forward(vector: np.ndarray) -> np.ndarray:
        inputs = torch.as_tensor(vector, dtype=example.dtype, device=example.device).view_as(example)
        return linear(inputs).flatten().cpu().numpy()

    # The layer is linear: its transpose is what its gradient applies to the output's.
    inputs = example.clone().requires_grad_()
    with torch.enable_grad(), true_float32():
        outputs = linear(inputs)

    def transposed(vector: np.ndarray) -> np.ndarray:
        cotangent = torch.as_tensor(vector, dtype=outputs.dtype, device=outputs.device).view_as(outputs)
        return torch.autograd.grad(outputs, inputs, cotangent, retain_graph=True)[0].flatten().cpu().numpy()

    size = (outputs.numel(), inputs.numel())
    if min(size) == 1 or not layer.weight.any():
        return layer.weight.detach().double().norm().item() if layer.weight.any() else 0.0
    operator = LinearOperator(size, matvec=forward, rmatvec=transposed, dtype=np.float32)
    with torch.no_grad(), true_float32():
        start = np.random.default_rng(0).standard_normal(min(size)).astype(np.float32)
        return float(svds(operator, k=1, v0=start, return_singular_vectors=False, tol=1e-6)[0])


def _vector(network: nn.Module) -> Tensor:
    """All parameters, (n,), in float64."""
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()])


def _log_product(norms: Tensor) -> float:
    """Log prod_l n_l^2."""
    if not (norms > 0).all():
        raise InputError("a layer's weight is zero")
    return 2 * norms.log().sum().item()


def _balanced_sum(log_product: float, subject: Subject) -> float:
    depth = len(subject.layers)
    return depth * math.exp(log_product / depth)
