"""Norms of each layer's weight, which the measures in `norms` combine."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regioncount.errors import InputError
from regioncount.measures.measured_model import Layer, MeasuredModel
from regioncount.regions.evaluation import true_float32

Vector = NDArray[np.float32]

# Up to this number of inputs or outputs, ARPACK's subspace is the whole space, and it may not converge.
DENSE_SIZE = 20


class _CountUses(TorchDispatchMode):
    """Counts how often each of some tensors is an argument of an operation.

    An operation that only asks for a tensor's shape or type, such as `new_zeros`, counts too. Of a view that the model keeps
    and uses several times, only the first use counts.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.uses = dict.fromkeys(tensors, 0)
        self._names = {id(tensor): name for name, tensor in tensors.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self._names:
                self.uses[self._names[id(value)]] += 1
        return func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=1)
def layers_with_shapes(measured: MeasuredModel) -> dict[str, tuple[Layer, torch.Size]]:
    """Return each layer with the shape of one of its inputs, by name.

    Raises:
        InputError: If the model does not use each layer and each parameter exactly once, a layer has a hook, or the model
            computes with a buffer. The norms of the weights would then not be those of the layers that the model computes.
    """
    for name, layer in measured.layers.items():
        if layer._forward_hooks or layer._forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
            raise InputError(f"the layer {name} has a forward hook, which may change what its weight computes")
    shapes: dict[nn.Module, list[torch.Size]] = {layer: [] for layer in measured.layers.values()}

    def record_shape(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        shapes[layer].append((*args, *kwargs.values())[0].shape[1:])

    hooks = [layer.register_forward_pre_hook(record_shape, with_kwargs=True) for layer in measured.layers.values()]
    try:
        parameters = dict(measured.network.named_parameters())
        buffers = {name: buffer for name, buffer in measured.network.named_buffers() if buffer.is_floating_point()}
        with torch.no_grad(), _CountUses(parameters | buffers) as counter:
            measured.network(measured.sample[0][:1])
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in measured.layers.items():
        if len(shapes[layer]) != 1:
            raise InputError(f"the model calls its layer {name} {len(shapes[layer])} times, not once")
    for name, number in counter.uses.items():
        if name in buffers and number:
            raise InputError(
                f"the model computes with its buffer {name}, which norms of layers ignore: apply it to the weights, or to "
                "the inputs before they are passed"
            )
        if name in parameters and number != 1:
            raise InputError(f"the model uses its parameter {name} {number} times, not once")
    return {name: (layer, shapes[layer][0]) for name, layer in measured.layers.items()}


@functools.lru_cache(maxsize=1)
def frobenius_norms(measured: MeasuredModel) -> Tensor:
    """Return ||W_l||_F of each layer, (d,)."""
    layers = layers_with_shapes(measured).values()
    return torch.stack([layer.weight.detach().double().norm().cpu() for layer, _ in layers])


@functools.lru_cache(maxsize=1)
def spectral_norms(measured: MeasuredModel) -> Tensor:
    """Return ||W_l||_2 of each layer, (d,), with the weight reshaped to (outputs, inputs x kernel).

    A grouped convolution is a block-diagonal matrix: its norm is the largest norm of a group.
    """
    return torch.stack([_spectral_norm(layer) for layer, _ in layers_with_shapes(measured).values()])


def _spectral_norm(layer: Layer) -> Tensor:
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    weight = layer.weight.detach().double().cpu()
    blocks = weight.reshape(groups, weight.shape[0] // groups, -1)  # (groups, outputs of a group, inputs x kernel)
    return torch.linalg.matrix_norm(blocks, 2).max()


@functools.lru_cache(maxsize=1)
def operator_norms(measured: MeasuredModel) -> Tensor:
    """Return the largest singular value of each layer as a linear map of its whole input, (d,)."""
    norms = [_operator_norm(layer, shape) for layer, shape in layers_with_shapes(measured).values()]
    return torch.tensor(norms, dtype=torch.float64)


def _operator_norm(layer: Layer, shape: torch.Size) -> float:
    """Return the largest singular value of a layer without its bias, as a map of one input of this shape."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return torch.linalg.matrix_norm(weight.double(), 2).item()
    linear = copy.deepcopy(layer).requires_grad_(False)
    linear.bias = None
    example = torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)

    def forward(vector: Vector) -> Vector:
        inputs = torch.as_tensor(vector, dtype=example.dtype, device=example.device).view_as(example)
        return linear(inputs).flatten().cpu().numpy()

    # The layer is linear, so its vector-Jacobian product is its transpose.
    inputs = example.clone().requires_grad_()
    with torch.enable_grad(), true_float32():
        outputs = linear(inputs)

    def transposed(vector: Vector) -> Vector:
        cotangent = torch.as_tensor(vector, dtype=outputs.dtype, device=outputs.device).view_as(outputs)
        return torch.autograd.grad(outputs, inputs, cotangent, retain_graph=True)[0].flatten().cpu().numpy()

    size = (outputs.numel(), inputs.numel())
    if not weight.any():
        return 0.0
    if min(size) <= DENSE_SIZE:
        apply, number = (forward, size[1]) if size[1] <= DENSE_SIZE else (transposed, size[0])
        with torch.no_grad(), true_float32():
            return float(np.linalg.norm([apply(unit) for unit in np.eye(number, dtype=np.float32)], 2))
    operator = LinearOperator(size, matvec=forward, rmatvec=transposed, dtype=np.float32)
    with torch.no_grad(), true_float32():
        start = np.random.default_rng(0).standard_normal(min(size)).astype(np.float32)
        return float(svds(operator, k=1, v0=start, return_singular_vectors=False, tol=1e-6)[0])
