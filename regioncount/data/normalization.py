"""The constants with which inputs are normalized: the mean and the standard deviation of each channel or feature."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regioncount.errors import InputError

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""The mean and the standard deviation of each channel or feature."""

ROWS = 4096  # inputs that are converted to float64 at a time


def given_constants(mean: object, std: object, shape: Sequence[int]) -> Constants | None:
    """Return the constants that a configuration gives; None if it gives none.

    Args:
        mean: A number for each channel; for features, one for each or one for all. Or None.
        std: As `mean`.
        shape: The shape of an input.

    Raises:
        InputError: They do not fit the inputs, or only one of them is given.
    """
    # A plugin's data set may have options of its own with these names.
    means, stds = (value if isinstance(value, list) else None for value in (mean, std))
    if means is None and stds is None:
        return None
    number, are_features = shape[0], len(shape) == 1
    lengths = (1, number) if are_features else (number,)
    if means is None or stds is None or len(means) not in lengths or len(stds) not in lengths or min(stds) <= 0:
        what = f"{number} features, or one for all" if are_features else f"{number} channels"
        raise InputError(
            f"dataset.mean={mean}, dataset.std={std}: give both, one number for each of {what}, and deviations above 0"
        )
    return tuple(means) * (number // len(means)), tuple(stds) * (number // len(stds))


def constants_of(inputs: Tensor) -> Constants:
    """Return the mean and the standard deviation of each channel of images, or of each feature.

    Args:
        inputs: Images (N, C, H, W): uint8, whose constants are those of pixels scaled to [0, 1], or float32. Or features
            (N, F), float32.

    Returns:
        The constants. Those of uint8 images are rounded to 4 decimals, others to 6 digits of the standard deviation. A
        constant channel or feature has the standard deviation 1: it is centred but not scaled.
    """
    if inputs.dtype == torch.uint8:
        return _constants_of_bytes(inputs)
    array = inputs.numpy()
    axes = (0, *range(2, array.ndim))
    number = array.size // array.shape[1]
    blocks = range(0, len(array), ROWS)
    total = sum(array[i : i + ROWS].sum(axis=axes, dtype=np.float64) for i in blocks)
    mean = np.asarray(total) / number
    center = mean.reshape(-1, *[1] * (array.ndim - 2))
    squares = sum(((array[i : i + ROWS] - center) ** 2).sum(axis=axes) for i in blocks)
    low, high = array.min(axis=axes), array.max(axis=axes)
    # Equal on every machine, although the last digits of sums are not.
    rounded = [
        _rounded(float(m), math.sqrt(s / number)) if a < b else (float(a), 1.0)
        for m, s, a, b in zip(mean, np.asarray(squares), low, high, strict=True)
    ]
    means, stds = zip(*rounded, strict=True)
    return means, stds


def _rounded(mean: float, std: float) -> tuple[float, float]:
    decimals = 5 - math.floor(math.log10(std))
    return round(mean, decimals), round(std, decimals)


def _constants_of_bytes(images: Tensor) -> Constants:
    # Computed from histograms, because the last digits of a direct sum depend on the number of threads.
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        frequencies = torch.bincount(channel.flatten(), minlength=256).numpy() / channel.numel()
        mean.append(float(frequencies @ levels))
        std.append(float(np.sqrt(frequencies @ (levels - mean[-1]) ** 2)))
    return tuple(round(value, 4) for value in mean), tuple(round(value, 4) or 1.0 for value in std)


def normalize(inputs: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (inputs - mean) / std as float32; uint8 inputs are divided by 255 before."""
    shape = (-1, *[1] * (inputs.dim() - 2))
    means, stds = (constant.view(shape) for constant in _on_device(mean, std, inputs.device))
    scaled = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs.clone()
    return scaled.sub_(means).div_(stds)


@functools.lru_cache
def _on_device(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    # Cached, because a copy from the host for each batch would synchronize with the device.
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)
