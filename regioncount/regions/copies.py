"""Copies of modules whose weights are what their forward pass uses."""

import copy
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Kind = TypeVar("Kind")

FROZEN_BATCH_NORM = "FrozenBatchNorm2d"  # of torchvision, and its copies in other packages
FROZEN_BUFFERS = {"weight", "bias", "running_mean", "running_var"}


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a module in evaluation mode, with computed weights as plain parameters.

    Parametrizations (weight norm, spectral norm, ...) and pruning compute a weight from other tensors before each forward
    pass. In the copy, the computed weight is stored instead. Frozen batch normalization, as in torchvision, is replaced by
    `nn.BatchNorm2d`, which can be folded.

    Args:
        model: The module, which is not changed.

    Returns:
        The copy, which computes the same function in evaluation mode.

    Raises:
        Exception: The module cannot be copied.
    """
    # Weights that hooks have computed are not leaves of autograd's graph, which `deepcopy` rejects.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    copied = copy.deepcopy(model, memo).eval()
    for name, module in list(copied.named_modules()):
        if type(module).__name__ == FROZEN_BATCH_NORM and {*dict(module.named_buffers())} == FROZEN_BUFFERS and name:
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, _as_batch_norm(module))
    for module in list(copied.modules()):
        stored = parametrize.is_parametrized(module)
        if stored:
            _store_parametrized(module)
        for hook in list(module._forward_pre_hooks.values()):  # pyright: ignore[reportPrivateUsage]
            stored |= isinstance(hook, prune.BasePruningMethod | WeightNorm | SpectralNorm)
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # pyright: ignore[reportPrivateUsage]
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
        if stored:
            _register_weights_first(module)
    return copied


def with_gradients(model: Kind) -> Kind:
    """Return a module of which derivatives can be computed: a copy if it was made in inference mode.

    Args:
        model: A module, or another object, which is returned unchanged.
    """
    if not isinstance(model, nn.Module):
        return model
    every = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
    tensors = {id(tensor): tensor for tensor in every if tensor.is_inference()}
    memo: dict[int, Any] = {number: tensor.detach().clone() for number, tensor in tensors.items()}
    for number, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            memo[number] = nn.Parameter(memo[number], tensor.requires_grad)
    return copy.deepcopy(model, memo) if tensors else model


def _store_parametrized(module: nn.Module) -> None:
    """Replace the parametrizations of a module by parameters with the computed weights.

    `parametrize.remove_parametrizations` would also change the module that was copied: both share a class, from which it
    removes a property.
    """
    names = list(cast(nn.ModuleDict, module.parametrizations))
    weights = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight))


def _register_weights_first(module: nn.Module) -> None:
    """Register a module's weights before its biases, as torch's layers do, after a computed one was stored last.

    Otherwise the order of a network's parameters, and so the noise that is drawn for them, would depend on how a weight is
    computed.
    """
    own = module._parameters  # pyright: ignore[reportPrivateUsage]
    for name in sorted(own, key=lambda name: "bias" in name):
        own[name] = own.pop(name)


def _as_batch_norm(frozen: nn.Module) -> nn.BatchNorm2d:
    """Return frozen batch normalization, whose weights are buffers, as batch normalization in evaluation mode."""
    tensors = dict(frozen.named_buffers())
    variance = tensors["running_var"]
    norm = nn.BatchNorm2d(len(variance), getattr(frozen, "eps", 1e-5), device=variance.device, dtype=variance.dtype)
    norm.load_state_dict(tensors, strict=False)
    return norm.eval()
