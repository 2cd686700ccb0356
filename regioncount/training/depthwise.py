"""Depthwise convolutions, taken so that training them on a CPU is fast: the same functions up to rounding.

oneDNN's backward pass is many times slower than its forward pass where such a convolution has a stride, or where its kernel
is large for its images. benchmarks/training.py has what that costs a network.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

# Pixels of an image up to which a convolution is taken as a matrix, for 3 x 3 kernels and for larger ones.
MATRIX_PIXELS = {3: 4, 5: 64}


def fast_depthwise(model: nn.Module, device: torch.device) -> dict[nn.Module, Callable]:
    """Forward functions for a model's depthwise convolutions on a CPU; none on other devices."""
    depthwise = [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels > 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    ]
    return {module: functools.partial(_forward, module) for module in depthwise} if device.type == "cpu" else {}


@contextmanager
def replaced(forwards: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Have modules use other forward functions; always the same ones, or a compiled model would be compiled again."""
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _forward(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    pixels = inputs.shape[2] * inputs.shape[3]
    if pixels <= MATRIX_PIXELS[3 if max(module.kernel_size) <= 3 else 5]:
        return _as_matrices(module, inputs)
    # All outputs, of which every other one is taken.
    whole = conv2d(inputs, module.weight, module.bias, 1, module.padding, module.dilation, module.groups)
    return whole[:, :, :: module.stride[0], :: module.stride[1]]


def _as_matrices(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    """A matrix (pixels in, pixels out) a channel, made of the kernel's weights."""
    batch, channels, *size = inputs.shape
    pixels, weights = size[0] * size[1], module.kernel_size[0] * module.kernel_size[1]
    with torch.no_grad():  # where each weight goes: what the convolution by it alone makes of each pixel
        each_pixel = torch.eye(pixels).view(pixels, 1, *size)
        each_weight = torch.eye(weights).view(weights, 1, *module.kernel_size)
        places = conv2d(each_pixel, each_weight, None, module.stride, module.padding, module.dilation)
        places = places.to(module.weight.dtype).transpose(0, 1)  # (weights, pixels in, height out, width out)
    matrices = (module.weight.flatten(1) @ places.flatten(1)).view(channels, pixels, -1)
    outputs = torch.bmm(inputs.flatten(2).transpose(0, 1), matrices)
    outputs = outputs.transpose(0, 1).reshape(batch, channels, *places.shape[2:])
    outputs = outputs if module.bias is None else outputs + module.bias.view(-1, 1, 1)
    return outputs.contiguous(memory_format=torch.channels_last)
