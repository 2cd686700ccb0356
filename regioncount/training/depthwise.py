"""Depthwise convolutions that train fast on a CPU, equal to torch's up to rounding.

oneDNN's backward pass of a depthwise convolution is many times slower than its forward pass if the convolution has a stride,
or if its kernel is large compared with the image. benchmarks/training.py measures the effect on whole networks.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

# Images of at most this number of pixels are convolved by a matrix product.
MAX_MATRIX_PIXELS = 64
MAX_MATRIX_PIXELS_3X3 = 4  # for kernels of at most 3 x 3


def fast_depthwise_forwards(model: nn.Module, device: torch.device) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Return a faster forward function for each depthwise convolution of a model.

    Args:
        model: The network.
        device: The device of training.

    Returns:
        The forward functions by module; none unless `device` is a CPU.
    """
    if device.type != "cpu":
        return {}
    return {module: functools.partial(_forward, module) for module in _depthwise_convolutions(model)}


@contextmanager
def replace_forwards(forwards: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Replace the forward functions of modules inside the block.

    Args:
        forwards: The new forward functions by module. For a compiled model they must be the same objects every time, or it
            would be compiled again.
    """
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _depthwise_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels > 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    ]


def _forward(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    pixels = inputs.shape[2] * inputs.shape[3]
    if pixels <= (MAX_MATRIX_PIXELS_3X3 if max(module.kernel_size) <= 3 else MAX_MATRIX_PIXELS):
        return _matrix_convolution(module, inputs)
    # With stride 1 the backward pass is fast; the outputs that a stride skips are dropped.
    outputs = conv2d(inputs, module.weight, module.bias, 1, module.padding, module.dilation, module.groups)
    return outputs[:, :, :: module.stride[0], :: module.stride[1]]


def _matrix_convolution(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Return the outputs, computed as one matrix product per channel: (B, pixels in) times (pixels in, pixels out)."""
    batch, channels, height, width = inputs.shape
    pixels, kernel_entries = height * width, module.kernel_size[0] * module.kernel_size[1]
    with torch.no_grad():
        # Convolving unit images with unit kernels gives, for each kernel entry, the 0/1 matrix of the input and output
        # pixels that it connects: (kernel entries, pixels in, height out, width out).
        unit_images = torch.eye(pixels).view(pixels, 1, height, width)
        unit_kernels = torch.eye(kernel_entries).view(kernel_entries, 1, *module.kernel_size)
        connections = conv2d(unit_images, unit_kernels, None, module.stride, module.padding, module.dilation)
        connections = connections.to(module.weight.dtype).transpose(0, 1)
    matrices = (module.weight.flatten(1) @ connections.flatten(1)).view(channels, pixels, -1)
    outputs = torch.bmm(inputs.flatten(2).transpose(0, 1), matrices)
    outputs = outputs.transpose(0, 1).reshape(batch, channels, *connections.shape[2:])
    outputs = outputs if module.bias is None else outputs + module.bias.view(-1, 1, 1)
    return outputs.contiguous(memory_format=torch.channels_last)
