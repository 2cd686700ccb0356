"""Copies of modules whose weights are what their forward pass uses."""

import copy
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a module in evaluation mode, with computed weights as plain parameters.

    Parametrizations (weight norm, spectral norm, ...) and pruning compute a weight from other tensors before each forward
    pass. In the copy, the computed weight is stored instead.

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
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            _store_parametrized(module)
        for hook in list(module._forward_pre_hooks.values()):  # pyright: ignore[reportPrivateUsage]
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # pyright: ignore[reportPrivateUsage]
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
    return copied


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
