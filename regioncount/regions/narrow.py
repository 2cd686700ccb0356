"""Strided convolutions of single pixels with few input channels, whose weight gradient damages memory on a CPU.

The weight gradient of such a convolution of channels-last images writes past the end of its memory: torch 2.15 aborts, or
goes on with other values changed. On processors with AVX2 this was seen for 2 to 7 input channels, and for no kernel larger
than one pixel and no stride of 1.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

MAX_CHANNELS = 16  # the float32 numbers in the longest vector of a processor (AVX-512)


def safe_forwards(model: nn.Module, device: torch.device) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Return a forward function without stride for each such convolution of a model; the values are the same.

    Args:
        model: The network.
        device: The device of its derivatives.

    Returns:
        The forward functions by module, of images (B, C, H, W); none unless `device` is a CPU.
    """
    if device.type != "cpu":
        return {}
    return {
        module: functools.partial(_forward, module)
        for module in model.modules()
        if type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding in ((0, 0), 0, "valid", "same")
        and module.in_channels // module.groups < MAX_CHANNELS
    }


def is_safe_forward(forward: object) -> bool:
    """Return whether a function is one of `safe_forwards`."""
    return isinstance(forward, functools.partial) and forward.func is _forward


def _forward(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    kept = inputs[..., :: module.stride[0], :: module.stride[1]]  # the pixels that the convolution reads
    return conv2d(kept, module.weight, module.bias, groups=module.groups)
