"""Magnitude pruning: small weights are set to zero, and training continues with the others (Han et al. 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def prunable_weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of all convolutions and linear layers, without biases. Shared weights are listed once."""
    layers = [module for module in model.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    return list({id(layer.weight): layer.weight for layer in layers}.values())


@torch.no_grad()
def prune(weights: Sequence[Tensor], sparsity: float) -> None:
    """Set the weights of the smallest magnitude to zero, in place.

    Args:
        weights: Tensors of any shapes; their entries are ranked together.
        sparsity: The fraction of the entries that becomes zero, rounded to a whole number of entries. Entries of the same
            magnitude as the largest of these become zero, too.
    """
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    number = round(sparsity * len(magnitudes))
    if number:
        threshold = magnitudes.kthvalue(number).values
        for weight in weights:
            weight[weight.abs() <= threshold] = 0


def nonzero_masks(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return 1 for each entry that is not zero, and 0 for the others, in tensors of the same shapes and types."""
    return [(weight != 0).to(weight.dtype) for weight in weights]


@torch.no_grad()
def zero_pruned(weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Set the entries whose mask is 0 to zero, in place; without masks, change nothing."""
    if masks:
        torch._foreach_mul_(list(weights), list(masks))  # pyright: ignore[reportPrivateImportUsage]
