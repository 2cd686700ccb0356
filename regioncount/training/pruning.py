"""Magnitude pruning: small weights are set to zero, and training continues with the others (Han et al. 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from regioncount.errors import InputError


def prunable_weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of all convolutions, linear layers and attentions, without biases. Shared weights are listed once.

    Raises:
        InputError: A weight is computed from other parameters, as by `torch.nn.utils.parametrizations.weight_norm`.
    """
    weights: dict[int, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            weights[id(module.weight)] = module.weight
            if not isinstance(module.weight, nn.Parameter):
                raise InputError(f"the weight of the layer {name} is no parameter, but computed from others")
        elif isinstance(module, nn.MultiheadAttention):
            names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
            projections = [getattr(module, name) for name in names]
            weights |= {id(weight): weight for weight in projections if weight is not None}
    return list(weights.values())


@torch.no_grad()
def prune(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Set the weights of the smallest magnitude to zero, in place.

    Args:
        weights: Tensors of any shapes; their entries are ranked together, and the first of equal ones come first.
        sparsity: The fraction of the entries that becomes zero, rounded to a whole number of entries.

    Returns:
        Masks of the tensors' shapes: True for the entries that are left.
    """
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    kept = torch.ones_like(magnitudes, dtype=torch.bool)
    kept[magnitudes.argsort(stable=True)[: round(sparsity * len(magnitudes))]] = False
    parts = kept.split([weight.numel() for weight in weights])
    masks = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
    zero_pruned(weights, masks)
    return masks


@torch.no_grad()
def zero_pruned(weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Set the entries whose mask is False to zero, in place; without masks, change nothing."""
    if masks:
        torch._foreach_mul_(list(weights), list(masks))  # pyright: ignore[reportPrivateImportUsage]
